"""sources.yaml: what it lists is built, and what is wrong in it is told with file, line and field, all at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bookclub_platform.core.book import slug_of
from bookclub_platform.core.errors import ConfigurationError, PermanentSourceError
from bookclub_platform.core.settings import POLITE_DELAY_S, Settings
from bookclub_platform.sources import BrokenSource, faults, schema, sources, sources_file
from bookclub_platform.sources.books_toscrape import BooksToScrape
from bookclub_platform.sources.table_file import TableFile

PROJECT = Path(__file__).parents[1]
SHOP = "- {name: good, kind: books_toscrape, address: http://127.0.0.1:1}\n"
FILE = "kind: table_file, address: a.csv, fields: {title: T, price: P, upc: U}"


def written(folder: Path, text: str) -> Settings:
    path = folder / "list.yaml"
    path.write_text(text)
    return Settings(sources=path)


def told(settings: Settings) -> list[str]:
    return [line.removeprefix(f"{settings.sources}:") for line in faults(settings)]


def test_the_list_that_comes_with_the_platform_is_the_one_shop_at_the_address_of_the_setting() -> None:
    (shop,) = sources(Settings(shop_url="http://127.0.0.1:8900"))
    assert isinstance(shop, BooksToScrape) and shop.has_categories
    assert (shop.name, shop.address) == ("books_toscrape", "http://127.0.0.1:8900")
    assert sources_file(Settings()).resolve() == PROJECT / "sources.yaml"


def test_the_working_folders_list_comes_before_it_and_the_setting_before_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sources.yaml").write_text("sources:\n" + SHOP)
    assert [source.name for source in sources(Settings())] == ["good"]
    other = written(tmp_path, "sources:\n" + SHOP.replace("good", "other"))
    assert [source.name for source in sources(other)] == ["other"]


def test_each_file_of_the_folder_is_a_kind_and_the_schema_knows_it() -> None:
    folder = Path(sys.modules["bookclub_platform.sources"].__path__[0])
    kinds = sorted(path.stem for path in folder.glob("[!_]*.py"))
    described = schema()
    assert sorted(described["properties"]["sources"]["items"]["discriminator"]["mapping"]) == kinds
    assert kinds == ["books_toscrape", "json_api", "rendered_shop", "table_file"]
    for definition in described["$defs"].values():
        assert definition["additionalProperties"] is False or "categories" in str(definition)


def test_every_fault_is_told_at_once_with_its_line_and_field(tmp_path: Path) -> None:
    text = """sources:
- name: good
  kind: books_toscrape
  address: http://127.0.0.1:1
- name: wrong
  kind: table_file
  address: ../secret.csv
  colour: red
  politeness: {delay_s: fast, concurrency: 0}
  fields:
    titel: Title
    price: 3
- {name: api, kind: json_api, address: ftp://x, next: {by: cursor, parameter: 1}}
- name: Bad-Name
  kind: book_shop
  address: ${NOWHERE_SET}
- {name: good, kind: rendered_shop, address: http://127.0.0.1:1}
- {kind: json_api}
kinds: 1
"""
    lines = told(written(tmp_path, text))
    assert [line.rpartition(": ")[0] if "must" not in line else line for line in lines] == [
        "7: sources.1.address: must be a web address, or a path below the folder BOOKCLUB_FILES, without ..",
        "8: sources.1.colour",
        "9: sources.1.politeness.delay_s",
        "9: sources.1.politeness.concurrency",
        "11: sources.1.fields.titel",
        "12: sources.1.fields.price",
        "13: sources.2.address: must be an address such as http://books.toscrape.com",
        "13: sources.2.fields",
        "13: sources.2.next.field",
        "13: sources.2.next.parameter",
        "14: sources.3.name: must be lower-case letters, digits and _, with a letter first, not 'Bad-Name'",
        "15: sources.3.kind: must be one of books_toscrape, json_api, rendered_shop, table_file, not 'book_shop'",
        "16: sources.3.address: ${NOWHERE_SET} is set nowhere",
        "17: sources.4.name",
        "18: sources.5.name",
        "18: sources.5.address",
        "18: sources.5.fields",
        "19: kinds",
    ]
    with pytest.raises(ConfigurationError, match=r"(?s)list\.yaml:8: .*:14: .*:19: "):
        sources(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1: sources: must be a list of sources"),
        ("sources: []", "1: sources: must be a list of sources"),
        ("sources: {}", "1: sources: must be a list of sources"),
        ("- a", "1: sources: must be a list of sources"),
        ("sources:\n- {name: [}", "2: file: is no YAML"),
        ("sources:\n- 7", "2: sources.0.name: is missing"),
        ("sources:\n- !!python/object:os.system {}", "2: "),
        ("sources:\n- {name: &a [*a]}", "1: file: has an alias"),
    ],
)
def test_a_file_that_is_no_list_of_sources_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    settings = written(tmp_path, text)
    assert told(settings)[0].startswith(fault)
    with pytest.raises(ConfigurationError):
        sources(settings)


def test_a_list_that_is_not_there_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml:0: file: cannot be read: No such file"):
        sources(Settings(sources=tmp_path / "nowhere.yaml"))


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("kind: books_toscrape, address: books", "address: must be an address"),
        ("kind: books_toscrape, address: http://a.test, address: http://b.test", "address stands twice"),
        ("kind: books_toscrape, address: 'http://user:secret@a.test'", "address: must be an address"),
        ("kind: books_toscrape, address: http://a.test, politeness: {delay_s: 0}", "on loopback alone"),
        ("kind: books_toscrape, address: http://a.test, politeness: {contact: a (b)}", "contact"),
        ("kind: books_toscrape, address: http://a.test, categories: {A: C, B: C}", "two of a shop's categories"),
        ("kind: books_toscrape, address: http://a.test, categories: {A: {name: x, slug: 'a,b'}}", "categories.A.slug"),
        ("kind: books_toscrape, address: http://a.test, categories: [A]", "categories"),
        ("kind: table_file, address: a.xls, fields: {title: T, price: P, upc: U}", "format: is missing"),
        ("kind: table_file, address: a.csv, fields: {title: T, upc: U}", "price is missing"),
        ("kind: table_file, address: a.csv, fields: {title: T, price: P}", "one of source_id, upc, url is needed"),
        (f"{FILE}, encoding: klingon", "encoding: is no encoding"),
        (f"{FILE}, delimiter: ';;'", "delimiter"),
        (f"{FILE}, decimal: x", "decimal"),
        ("kind: nothing", "must be one of"),
    ],
)
def test_a_source_with_a_fault_says_so_when_crawled_and_holds_no_other_back(
    tmp_path: Path, entry: str, fault: str
) -> None:
    good, broken = sources(written(tmp_path, f"sources:\n{SHOP}- {{name: broken, {entry}}}\n"))
    assert isinstance(good, BooksToScrape) and isinstance(broken, BrokenSource)
    assert broken.name == "broken" and broken.has_categories == ("table_file" not in entry)
    with pytest.raises(PermanentSourceError, match=r"source broken: .*list\.yaml:3: ") as told, broken.fetcher():
        pass
    assert fault in str(told.value)


def test_a_kind_that_cannot_be_imported_breaks_its_own_sources_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = written(tmp_path, f"sources:\n{SHOP}- {{name: api, kind: json_api, address: http://127.0.0.1:1}}\n")
    monkeypatch.setitem(sys.modules, "bookclub_platform.sources.json_api", None)
    good, broken = sources(settings)
    assert isinstance(good, BooksToScrape) and isinstance(broken, BrokenSource)
    assert "kind json_api cannot be used on this machine: import of" in broken.reason


def test_politeness_is_the_sources_own_then_the_settings_then_kind(tmp_path: Path) -> None:
    text = """sources:
- {name: own, kind: books_toscrape, address: http://a.test,
   politeness: {delay_s: 3, concurrency: 2, contact: me@books.test}}
- {name: plain, kind: books_toscrape, address: http://a.test}
- {name: local, kind: books_toscrape, address: http://localhost:1}
"""
    path = written(tmp_path, text).sources
    webs = [source.web for source in sources(Settings(sources=path)) if isinstance(source, BooksToScrape)]
    assert [(web.delay_s, web.concurrency, web.contact) for web in webs] == [
        (3.0, 2, "me@books.test"),
        (POLITE_DELAY_S, 8, None),
        (0.0, 8, None),
    ]
    assert webs[0].shops == ("http://a.test",)
    set_ = Settings(sources=path, crawl_delay_s=2, crawl_concurrency=3, crawl_contact="us@books.test")
    webs = [source.web for source in sources(set_) if isinstance(source, BooksToScrape)]
    assert [(web.delay_s, web.concurrency, web.contact) for web in webs] == [
        (3.0, 2, "me@books.test"),
        (2.0, 3, "us@books.test"),
        (2.0, 3, "us@books.test"),
    ]
    none = Settings(sources=path, crawl_delay_s=0)
    webs = [source.web for source in sources(none) if isinstance(source, BooksToScrape)]
    assert [web.delay_s for web in webs] == [3.0, POLITE_DELAY_S, 0.0]  # no delay is for loopback alone


def test_variables_are_settings_with_their_defaults_or_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPORT", "lists/b")
    text = f"sources:\n- {{name: a, {FILE}}}\n".replace("a.csv", "'${EXPORT}-${BOOKCLUB_API_PORT}.csv'")
    (source,) = sources(written(tmp_path, text))
    assert isinstance(source, TableFile) and source.address == "file:lists/b-8000.csv"


def test_many_categories_of_a_file_may_be_one_of_ours(tmp_path: Path) -> None:
    (source,) = sources(written(tmp_path, f"sources:\n- {{name: a, {FILE}, categories: {{A: C, B: C}}}}\n"))
    assert isinstance(source, TableFile) and not source.has_categories


@pytest.mark.parametrize(
    ("name", "slug"),
    [("Science Fiction & Fantasy", "science-fiction-fantasy"), ("Poésie", "poesie"), ("歴史", "歴史"), (" -- ", "")],
)
def test_a_slug_keeps_the_letters_of_a_name(name: str, slug: str) -> None:
    assert slug_of(name) == slug


def test_the_command_checks_the_list_and_prints_the_schema(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bookclub_platform.sources"]
    shown = subprocess.run([*command, "schema"], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert json.loads(shown.stdout) == schema() and not shown.stderr
    (tmp_path / "sources.yaml").write_text("sources: 1")
    found = subprocess.run(
        [*command, "check"], capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(PROJECT)}
    )
    assert found.returncode == 1 and "sources.yaml:1: sources: must be a list" in found.stdout
