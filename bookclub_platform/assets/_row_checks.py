"""Cleaned rows of a category -> faults in them: the checks of `cleaned_books`, as pure functions.

The rules themselves are in core/book.py, and cleaning rejects what breaks one. `rows_fit` and `key_unique` check again
the rows that are passed on, so that a bug of ours never reaches the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import sqrt

import dagster as dg

from bookclub_platform.assets._checks import Check, Findings
from bookclub_platform.core.book import Book, RejectedBook
from bookclub_platform.core.rules import KEY_UNIQUE, broken_rule, rules

MOST_REJECTED = 0.1
MOST_WITHOUT_DESCRIPTION = 0.25
_Z = 1.96  # 95 % of a normal distribution lie within this many standard deviations

ROWS_FIT = Check(
    "rows_fit",
    "Every row that is handed on keeps the rules of core/book.py: "
    + ", ".join(rule.name for rule in rules(Book) if rule.is_kept)
    + ". A category that fails is not loaded.",
    is_blocking=True,
)
KEY_IS_UNIQUE = Check(
    KEY_UNIQUE.name, f"{KEY_UNIQUE.meaning.capitalize()}. A category that fails is not loaded.", is_blocking=True
)
FEW_REJECTED = Check(
    "few_rejected",
    f"At most {MOST_REJECTED:.0%} of a category was rejected: more of it smells of a changed layout. "
    "The last good rows of rejected pages stay in the table.",
)
HAS_BOOKS = Check(
    "has_books",
    "The shop shows at least one book in the category. Of pages that were all rejected `few_rejected` tells.",
    severity=dg.AssetCheckSeverity.WARN,
)
HAS_DESCRIPTIONS = Check(
    "has_descriptions",
    f"Not surely more than {MOST_WITHOUT_DESCRIPTION:.0%} of the rows are without a description. Surely: the lower end "
    "of the 95 % interval (Wilson) of the share, so that the only book of a category may lack one.",
    severity=dg.AssetCheckSeverity.WARN,
)
ROW_CHECKS = [ROWS_FIT, KEY_IS_UNIQUE, FEW_REJECTED, HAS_BOOKS, HAS_DESCRIPTIONS]


def check_rows(findings: Findings, key: str, books: Iterable[Book], rejected: Sequence[RejectedBook]) -> None:
    """Record what ROW_CHECKS find in a category. `books` is iterated once."""
    total = without = 0
    unfit: Counter[str] = Counter()
    first_unfit = ""
    keys: Counter[str] = Counter()
    for book in books:
        total += 1
        without += book.description is None
        keys[book.source_id] += 1
        rule = broken_rule(book)
        if rule is not None:
            unfit[rule.name] += 1
            first_unfit = first_unfit or f"{book.url} ({', '.join(f'{n}={getattr(book, n)!r}' for n in rule.fields)})"
    doubles = [name for name, count in keys.items() if count > 1]

    fault = f"{unfit.total()} of {total} rows break a rule, first {first_unfit}" if unfit else None
    findings.note(ROWS_FIT, key, fault, rows=total, broken=dict(unfit))
    fault = f"{len(doubles)} keys stand twice, {doubles[0]!r} among them" if doubles else None
    findings.note(KEY_IS_UNIQUE, key, fault, rows=total, doubles=len(doubles))
    found = total + len(rejected)
    by_rule = Counter(row.rule for row in rejected)
    shown = ", ".join(f"{name} {count}" for name, count in by_rule.most_common())
    fault = f"{len(rejected)} of {found} were rejected: {shown}" if len(rejected) > MOST_REJECTED * found else None
    findings.note(FEW_REJECTED, key, fault, rejected=len(rejected), found=found, by_rule=dict(by_rule))
    findings.note(HAS_BOOKS, key, None if total or rejected else "no page of a book came", books=total)
    is_poor = least_share(without, total) > MOST_WITHOUT_DESCRIPTION
    fault = f"{without} of {total} rows have no description" if is_poor else None
    findings.note(HAS_DESCRIPTIONS, key, fault, without=without, rows=total)


def least_share(hits: int, of: int) -> float:
    """Lower end of the 95 % interval of a share (Wilson score); 0 if `of` is 0."""
    if not of:
        return 0.0
    share, spread = hits / of, _Z**2 / of
    return (share + spread / 2 - _Z * sqrt((share * (1 - share) + spread / 4) / of)) / (1 + spread)
