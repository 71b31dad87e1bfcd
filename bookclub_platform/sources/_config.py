"""sources.yaml -> one validated configuration per source, or every fault with file, line and field.

    found = read(path, kinds, settings.variable)      # found.entries, found.faults

A fault inside an entry with a valid name breaks only that source. A fault that cannot be attributed to a source
(invalid YAML, no name, a duplicate name) belongs to the whole file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from bookclub_platform.core.book import slug_of
from bookclub_platform.core.settings import is_loopback

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SLUG = r"^[^\W_]+(-[^\W_]+)*$"
_NAME_RULE = "must be lower-case letters, digits and _, with a letter first"
_FEW_WORDS = {"extra_forbidden": "is no field of this kind", "missing": "is missing"}

Variables = Callable[[str], str | None]
Place = tuple[int | str, ...]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Politeness(_Strict):
    """How one source is asked; what is not set is as BOOKCLUB_CRAWL_* say."""

    delay_s: Annotated[float | None, Field(ge=0)] = None
    concurrency: Annotated[int | None, Field(ge=1, le=64)] = None
    contact: Annotated[str, Field(pattern=r"^[!-'*-~]+$")] | None = None


class OurCategory(_Strict):
    """A category of ours: `slug` is its partition; unset, it is made from `name`."""

    name: Annotated[str, Field(min_length=1)]
    slug: Annotated[str, Field(pattern=_SLUG)] = ""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        fields = {"name": value} if isinstance(value, str) else value
        if isinstance(fields, dict) and isinstance(fields.get("name"), str) and "slug" not in fields:
            return fields | {"slug": slug_of(fields["name"])}
        return fields


def _folded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {_fold(key) if isinstance(key, str) else key: mapped for key, mapped in value.items()}


def _fold(name: str) -> str:
    return " ".join(name.split()).casefold()


CategoryMap = Annotated[
    dict[str, OurCategory], BeforeValidator(_folded, json_schema_input_type=dict[str, str | OurCategory])
]


def ours(categories: Mapping[str, OurCategory], name: str) -> tuple[str, str] | None:
    """(slug, name) of our category for the source's category `name`; None for a name without a letter."""
    mapped = categories.get(_fold(name))
    if mapped is not None:
        return mapped.slug, mapped.name
    slug = slug_of(name)
    return (slug, " ".join(name.split())) if slug else None


def web_address(address: str) -> str:
    """The validated address, without a trailing slash."""
    if not re.match(r"https?://[^/\s@?#]+([/?#]\S*)?$", address):
        raise ValueError("must be an address such as http://books.toscrape.com")
    return address.rstrip("/")


WebAddress = Annotated[str, AfterValidator(web_address)]


class SourceConfig(_Strict):
    """What every source has; a kind adds `kind: Literal[...]` and its own fields.

    Attributes:
        has_categories: of the kind, see _contract.Source.
        redirects_to: addresses of other hosts that the source may send us to; only their host and port count.
        categories: the source's category -> ours.
    """

    has_categories: ClassVar[bool]

    name: Annotated[str, Field(pattern=f"^{_NAME.pattern}$")]
    kind: str
    address: WebAddress
    politeness: Politeness = Politeness()
    redirects_to: list[WebAddress] = []
    categories: CategoryMap = {}

    @model_validator(mode="after")
    def _is_polite(self) -> SourceConfig:
        if self.politeness.delay_s == 0 and "://" in self.address and not is_loopback(self.address):
            raise ValueError("politeness: delay_s 0 is allowed for an address on loopback alone")
        return self

    @model_validator(mode="after")
    def _is_one_to_one(self) -> SourceConfig:
        slugs = [mapped.slug for mapped in self.categories.values()]
        if self.has_categories and len(slugs) != len(set(slugs)):
            raise ValueError("categories: two of a shop's categories cannot be one of ours: each is crawled for itself")
        return self


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where. `source` is the entry's name, None if it has no usable one."""

    file: Path
    line: int
    field: str
    reason: str
    source: str | None
    kind: str | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Found:
    """The content of the file: the valid entries, in its order, and all faults. `names`: every usable name."""

    entries: dict[str, SourceConfig]
    faults: list[Fault]
    names: list[str]


def read(path: Path, kinds: Mapping[str, type[SourceConfig]], variables: Variables) -> Found:
    """Read and validate the file.

    Args:
        kinds: kind -> its Config.
        variables: the value of `${NAME}`, None if there is none.
    """
    found = Found({}, [], [])
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        return Found({}, [Fault(path, 0, "file", f"cannot be read: {error.strerror}", None)], [])
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error)
        return Found({}, [Fault(path, mark.line + 1 if mark else 1, "file", f"is no YAML: {reason}", None)], [])
    file = _File(path, root, variables)
    try:
        data = file.value(root, ())
    except RecursionError:
        return Found({}, [Fault(path, 1, "file", "has an alias (*) for something that it stands in", None)], [])
    entries = data.get("sources") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not entries:
        file.fault(("sources",), "must be a list of sources, with one at least")
        entries = []
    for unknown in (data if isinstance(data, dict) else {}).keys() - {"sources"}:
        file.fault((unknown,), "is no field of the file; it has `sources`")
    for at, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str) and name in found.names:
            file.fault(("sources", at, "name"), f"{name} is the name of another source")
        elif isinstance(name, str) and _NAME.fullmatch(name):
            found.names.append(name)
            config = file.checked(at, name, entry, kinds)
            found.entries.update({name: config} if config is not None else {})
        else:
            file.fault(("sources", at, "name"), f"{_NAME_RULE}, not {name!r}" if name is not None else "is missing")
            file.checked(at, None, entry if isinstance(entry, dict) else {}, kinds)
    found.faults.extend(sorted(file.faults, key=lambda fault: fault.line))
    broken = {fault.source for fault in file.faults}
    return Found(
        {name: entry for name, entry in found.entries.items() if name not in broken}, found.faults, found.names
    )


class _File:
    """A parsed file, and the faults found in it."""

    def __init__(self, path: Path, root: yaml.Node | None, variables: Variables) -> None:
        self.path, self.root, self.variables = path, root, variables
        self.faults: list[Fault] = []

    def fault(self, place: Place, reason: str, source: str | None = None, kind: str | None = None) -> None:
        line, shown = self._locate(place)
        self.faults.append(Fault(self.path, line, ".".join(map(str, shown)), reason, source, kind))

    def checked(
        self, at: int, name: str | None, entry: dict[str, Any], kinds: Mapping[str, type[SourceConfig]]
    ) -> SourceConfig | None:
        kind = entry.get("kind")
        if not isinstance(kind, Hashable) or kind not in kinds:
            self.fault(
                ("sources", at, "kind"), f"must be one of {', '.join(sorted(kinds))}, not {kind!r}", name, str(kind)
            )
            return None
        try:
            return kinds[str(kind)].model_validate(entry)
        except ValidationError as error:
            for fault in error.errors():
                if fault["loc"] != ("name",):
                    reason = _FEW_WORDS.get(fault["type"], fault["msg"].removeprefix("Value error, "))
                    self.fault(("sources", at, *fault["loc"]), reason, name, str(kind))
            return None

    def value(self, node: yaml.Node | None, place: Place) -> Any:
        """The node as plain data, with variables substituted; a duplicate field is a fault."""
        if isinstance(node, yaml.MappingNode):
            data: dict[Any, Any] = {}
            for key_node, value_node in node.value:
                key = self.value(key_node, place) if isinstance(key_node, yaml.ScalarNode) else str(key_node.value)
                if key in data:
                    self._fault_of(place, key_node, f"{key} stands twice")
                data[key] = self.value(value_node, (*place, key))
            return data
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, at)) for at, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
            return _VARIABLE.sub(lambda found: self._variable(found[1], place, node), node.value)
        if node is None:
            return None
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self._fault_of(place, node, f"cannot be read: {error}")
            return None

    def _variable(self, name: str, place: Place, node: yaml.Node) -> str:
        value = self.variables(name)
        if value is None:
            self._fault_of(place, node, f"${{{name}}} is set nowhere: neither a setting nor in the environment")
        return value or ""

    def _fault_of(self, place: Place, node: yaml.Node, reason: str) -> None:
        field = ".".join(map(str, place)) or "file"
        self.faults.append(Fault(self.path, node.start_mark.line + 1, field, reason, self._name(place)))

    def _name(self, place: Place) -> str | None:
        """The name of the entry that contains the place."""
        if len(place) < 2 or not isinstance(place[1], int):
            return None
        entry = next(value for key, value, _ in _items(self.root) if key == "sources").value[place[1]]
        name = next((value.value for key, value, _ in _items(entry) if key == "name"), None)
        return name if isinstance(name, str) and _NAME.fullmatch(name) else None

    def _locate(self, place: Place) -> tuple[int, Place]:
        """(line, place in the file's spelling), without the steps that pydantic adds for types."""
        node, line, shown = self.root, self.root.start_mark.line + 1 if self.root else 1, list[int | str]()
        for step in place:
            if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                node = node.value[step]
                line = node.start_mark.line + 1
                shown.append(step)
            elif inner := next((pair for pair in _items(node) if _fold(pair[0]) == _fold(str(step))), None):
                shown.append(inner[0])
                line, node = inner[2], inner[1]
            elif step is place[-1]:
                shown.append(step)
        return line, tuple(shown)


def _items(node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node, int]]:
    """(key, value, line of the key)"""
    if isinstance(node, yaml.MappingNode):
        yield from ((str(key.value), value, key.start_mark.line + 1) for key, value in node.value)
