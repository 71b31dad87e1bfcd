"""Annotations of a row's fields -> the meaning of each field, and the rules for a row: declared once.

price: Annotated[Decimal, Column("What the shop asks.", unit="`currency`"), within(0, Decimal("99999999.99"))]

cleaning        rejects a row that breaks a rule, under the rule's name
core/tables.py  turns the rules with an `sql` into the table's constraints, `ck_<table>_<name>`
assets          take descriptions and units of the columns from here, and what the check `rows_fit` tests
docs/rows.md    python -m bookclub_platform.core.rules > docs/rows.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, get_type_hints

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Column:
    """The meaning of a field, in a sentence; `unit` is empty if there is none."""

    meaning: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition that holds for every stored row.

    Attributes:
        name: its name in rejected rows and constraints.
        fields: the fields that it concerns; the test gets their values in this order.
        meaning: the condition in words.
        is_kept: the test; None if one finished row cannot show it: cleaning enforces such rules itself.
        sql: the same condition over the columns of a table; "" if there is none.
    """

    name: str
    fields: tuple[str, ...]
    meaning: str
    is_kept: Callable[..., bool] | None = None
    sql: str = ""


def within(low: int, high: Any) -> Rule:
    """The annotated field is a number from `low` to `high`, or None."""
    sql = f"{{field}} BETWEEN {low} AND {high}"
    return Rule("range", (), f"{low} to {high}", lambda value: value is None or low <= value <= high, sql)


def given() -> Rule:
    """The annotated field is a text with more than white space in it."""
    # ASCII white space, in Python as in SQL: Postgres knows no other. Cleaning has stripped the rest.
    sql = r"btrim({field}, E' \t\n\r\f\v') <> ''"
    return Rule("given", (), "not blank", lambda value: bool(value.strip(" \t\n\r\f\v")), sql)


def at_most(size: int) -> Rule:
    """The annotated field is a text of at most so many bytes in UTF-8, or None.

    What an index of Postgres holds must not exceed 2,704 bytes. Only cleaning enforces it: a constraint of the table
    would no longer let a longer row of an earlier release be delisted.
    """
    return Rule("length", (), f"at most {size:,} bytes (UTF-8)", lambda value: value is None or _size(value) <= size)


def _size(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))


def written_as(pattern: str, meaning: str) -> Rule:
    """The annotated field is a text that `pattern` matches as a whole; it must mean the same to Postgres."""
    whole = re.compile(pattern)
    sql = f"{{field}} ~ '^{pattern}$'"
    return Rule("form", (), meaning, lambda value: whole.fullmatch(value) is not None, sql)


def _named(field: str, rule: Rule) -> Rule:
    return replace(rule, name=f"{field}_{rule.name}", fields=(field,), sql=rule.sql.replace("{field}", field))


# Rules that no single field can show. A page breaks the first, a set of rows the third.
PAGE_READABLE = Rule("page_readable", (), "the page, or the line of a file, is built as its kind of source has it")
PRICE_READABLE = Rule("price_readable", ("price", "currency"), "an amount in one currency that is named")
KEY_UNIQUE = Rule(
    "key_unique", ("source", "source_id"), "two pages of a category never have one key (in the table: unique)"
)
TEXT_STORABLE = Rule("text_storable", (), "no NUL and no half character: no Postgres text can hold one")


@cache
def columns(row: type) -> dict[str, Column]:
    """Field -> its column, in the order of the fields of `row`."""
    return {name: part for name, part in _annotations(row) if isinstance(part, Column)}


@cache
def rules(row: type) -> tuple[Rule, ...]:
    """Every rule for `row`, those for pages and sets of rows first."""
    texts = tuple(name for name, kind in get_type_hints(row).items() if kind in {str, str | None})
    storable = replace(TEXT_STORABLE, fields=texts, is_kept=_is_storable)
    own = tuple(_named(name, part) for name, part in _annotations(row) if isinstance(part, Rule))
    return PAGE_READABLE, PRICE_READABLE, KEY_UNIQUE, *own, storable


def _annotations(row: type) -> Iterator[tuple[str, Any]]:
    for name, kind in get_type_hints(row, include_extras=True).items():
        for part in getattr(kind, "__metadata__", ()):
            yield name, part


def shortened(text: str, size: int) -> str:
    """`text` in at most `size` bytes of UTF-8: of a longer one, the middle is left out."""
    if _size(text) <= size:
        return text
    whole, tail = text.encode(errors="replace"), size // 4
    head = size - tail - len("…".encode())
    return f"{whole[:head].decode(errors='ignore')}…{whole[-tail:].decode(errors='ignore')}"


def _is_storable(*texts: str | None) -> bool:
    return not any(text and _UNSTORABLE.search(text) for text in texts)


def broken_rule(row: Any) -> Rule | None:
    """The first rule that `row` breaks; None if it keeps them all."""
    for rule, is_kept in _tests(row.__class__):
        if not is_kept(*(getattr(row, name) for name in rule.fields)):
            return rule
    return None


@cache
def _tests(row: type) -> tuple[tuple[Rule, Callable[..., bool]], ...]:
    return tuple((rule, rule.is_kept) for rule in rules(row) if rule.is_kept is not None)


def constraints(row: type, held: Iterable[str]) -> dict[str, str]:
    """Name -> SQL condition, for a table that has the columns `held` of `row`."""
    here = set(held)
    return {rule.name: rule.sql for rule in rules(row) if rule.sql and here.issuperset(rule.fields)}


def as_markdown(row: type) -> str:
    """The page docs/rows.md: every column and every rule."""
    lines = ["| column | meaning | unit |", "|---|---|---|"]
    lines += [f"| `{name}` | {column.meaning} | {column.unit} |" for name, column in columns(row).items()]
    lines += ["", "| rule | of | what holds | kept by |", "|---|---|---|---|"]
    for rule in rules(row):
        fields = ", ".join(f"`{name}`" for name in rule.fields) or "page"
        keeper = "cleaning, table" if rule.sql else "cleaning"
        lines.append(f"| `{rule.name}` | {fields} | {rule.meaning} | {keeper} |")
    return "\n".join(lines)


_PAGE = """# What a row is, and the rules that it keeps

Written by `python -m bookclub_platform.core.rules > docs/rows.md` from the annotations in `core/book.py`: change them
there. A row that breaks a rule is kept in `rejected_books` with the rule's name in `rule`, and counted in the metadata
of `cleaned_books`. "Table" means that the database refuses such a row too, whoever writes it.

{tables}
"""


def page() -> str:
    """The whole text of docs/rows.md."""
    from bookclub_platform.core.book import Book

    return _PAGE.format(tables=as_markdown(Book))


if __name__ == "__main__":
    from bookclub_platform.core import rules as declared  # as a script, this module has other classes than Book

    sys.stdout.write(declared.page())
