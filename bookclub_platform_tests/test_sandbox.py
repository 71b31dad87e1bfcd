"""The sandbox shop: its books are always the same, its pages have the real shop's structure and oddities."""

from __future__ import annotations

import hashlib
import re
import signal
import socket
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from itertools import combinations
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests
from bs4 import BeautifulSoup, Tag

from bookclub_platform.core.errors import ConfigurationError, PortTaken
from bookclub_platform.sandbox import Catalogue, generate, running, serve
from bookclub_platform.sandbox.blurbs import LEAD
from bookclub_platform.sandbox.pages import Shop
from bookclub_platform.sandbox.words import words

ROOT = Path(__file__).parents[1]
SNAPSHOTS = ROOT.parent / "shared" / "shop" / "snapshots"
STARS = ["One", "Two", "Three", "Four", "Five"]
ABSENT = [
    "/robots.txt", "/nothing", "/catalogue/page-0.html", "/catalogue/page-8.html", "/media/cache/aa/bb/short.jpg",
    "/catalogue/no-such-book_5/index.html", "/catalogue/category/books/unsorted_2/index.html",
    "/catalogue/category/books/unsorted_15/page-99.html", "/catalogue/%00_1/index.html", "/catalogue/../../etc/passwd",
]  # fmt: skip


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return generate(1000, seed=0)


@pytest.fixture(scope="module")
def shop(catalogue: Catalogue) -> Shop:
    return Shop(catalogue)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(books=130, seed=4) as base_url:
        yield base_url


def soup(shop: Shop, path: str) -> BeautifulSoup:
    page = shop.page(path)
    assert page is not None, path
    return BeautifulSoup(page.body, "html.parser")


def categories(shop: Shop) -> dict[str, str]:
    """Name -> path, as the sidebar of the home page has them."""
    links = soup(shop, "").select(".side_categories ul ul a")
    return {link.get_text(strip=True): str(link["href"]) for link in links}


def pages_from(shop: Shop, path: str) -> Iterator[tuple[str, BeautifulSoup]]:
    """A listing and those that its pager leads to."""
    while True:
        page = soup(shop, path)
        yield path, page
        following = page.select_one("li.next > a")
        if following is None:
            return
        path = joined(path, following)


def joined(path: str, link: Tag, attribute: str = "href") -> str:
    return urljoin(f"http://shop/{path}", str(link[attribute])).removeprefix("http://shop/")


def digest(shop: Shop) -> str:
    """Of the home page, a category and every tenth book."""
    paths = ["", *categories(shop).values(), *(f"catalogue/{book.path}" for book in shop.catalogue.books[::10])]
    pages = [shop.page(path) for path in paths]
    return hashlib.sha256(b"".join(page.body for page in pages if page)).hexdigest()


def printed_by(script: str) -> str:
    """What a fresh Python, which hashes strings otherwise, prints for `script`."""
    fresh = {"PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", script], env=fresh, capture_output=True, text=True, check=True)
    return found.stdout.strip()


def skeleton(page: BeautifulSoup) -> list[tuple[int, str, tuple[str, ...]]]:
    """(depth, tag, classes) of each element; the number of stars is a class, and differs from book to book."""
    return [
        (len(list(tag.parents)), tag.name, tuple(name for name in tag.get_attribute_list("class") if name not in STARS))
        for tag in page.find_all(True)
    ]


@pytest.mark.parametrize(
    "path, saved", [("", "home.webpoet.html"), ("", "home.transistor.html"), (None, "detail_1000.html")]
)
def test_a_page_has_the_elements_of_the_real_shop_s_page_one_by_one(shop: Shop, path: str | None, saved: str) -> None:
    if not SNAPSHOTS.is_dir():
        pytest.skip("no ../shared")
    ours = soup(shop, f"catalogue/{shop.catalogue.books[-1].path}" if path is None else path)
    assert skeleton(ours) == skeleton(BeautifulSoup((SNAPSHOTS / saved).read_bytes(), "html.parser"))


def test_every_book_is_reached_once_by_the_categories_and_each_listing_says_how_many(shop: Shop) -> None:
    reached: list[str] = []
    for name, start in categories(shop).items():
        of_category: list[str] = []
        for path, page in pages_from(shop, start):
            links = page.select("article.product_pod h3 > a")
            of_category += [joined(path, link) for link in links]
            current = page.select_one(".side_categories strong")
            assert current is not None and current.get_text(strip=True) == name
        total = page.select_one("form.form-horizontal > strong")
        assert total is not None and int(total.get_text()) == len(of_category)
        reached += of_category
    assert len(reached) == len(set(reached)) == 1000
    assert all(shop.page(path) for path in reached)


@pytest.mark.parametrize("start", ["", "catalogue/page-1.html", "catalogue/category/books_1/index.html"])
def test_every_book_is_reached_from_the_parent_listings_with_the_newest_first(shop: Shop, start: str) -> None:
    numbers = [
        int(joined(path, link).rpartition("_")[2].split("/")[0])
        for path, page in pages_from(shop, start)
        for link in page.select("h3 > a")
    ]
    assert numbers == list(range(1000, 0, -1))


@pytest.mark.parametrize(
    "path", ["", "catalogue/page-3.html", "catalogue/category/books_1/page-2.html", "category", "detail"]
)
def test_every_link_and_picture_of_a_page_resolves_from_its_own_depth(shop: Shop, path: str) -> None:
    path = {"category": categories(shop)["Unsorted"], "detail": f"catalogue/{shop.catalogue.books[500].path}"}.get(
        path, path
    )
    page = soup(shop, path)
    wanted = [joined(path, link) for link in page.select("a[href]")]
    wanted += [joined(path, image, "src") for image in page.select("img")]
    wanted += [joined(path, sheet) for sheet in page.select("link[rel=stylesheet]")]
    assert len(wanted) > 10
    assert [target for target in wanted if shop.page(target) is None] == []


def test_a_book_s_own_page_carries_all_its_facts(shop: Shop) -> None:
    for book in shop.catalogue.books[::97]:
        page = soup(shop, f"catalogue/{book.path}")
        main = page.select_one(".product_main")
        assert main is not None
        assert [tag.get_text() for tag in main.select("h1, .price_color")] == [book.title, book.price]
        assert main.select_one(f"p.star-rating.{STARS[book.rating - 1]}") is not None
        rows = {row.select("th")[0].get_text(): row.select("td")[0].get_text() for row in page.select("table tr")}
        assert rows == {
            "UPC": book.upc, "Product Type": "Books", "Price (excl. tax)": book.price, "Price (incl. tax)": book.price,
            "Tax": "£0.00", "Availability": f"In stock ({book.stock} available)", "Number of reviews": "0",
        }  # fmt: skip
        description = page.select_one("#product_description + p")
        assert (description.get_text() if description else "") == shop.catalogue.description(book)
        meta = page.select_one("meta[name=description]")
        assert meta is not None and str(meta["content"]).strip("\n ") == shop.catalogue.description(book)
        crumbs = [item.get_text(strip=True) for item in page.select("ul.breadcrumb > li")]
        assert crumbs == ["Home", "Books", words().genres[book.genre].name, book.title]


def test_most_pages_end_with_up_to_six_other_books(shop: Shop) -> None:
    counts = []
    for book in (shop.catalogue.books[at] for at in (0, 400, 994, 998, 999)):
        pods = soup(shop, f"catalogue/{book.path}").select("article.product_page article.product_pod h3 > a")
        assert all(f"_{book.number}/" not in str(pod["href"]) for pod in pods)
        counts.append(len(pods))
    assert counts == [6, 6, 5, 1, 0]


def test_a_listing_cuts_titles_to_four_words_and_keeps_the_whole_one_beside_it(shop: Shop) -> None:
    links = [link for _, page in pages_from(shop, "") for link in page.select("h3 > a")]
    cut = [link for link in links if link.get_text().endswith(" ...")]
    assert len(links) == 1000 and len(cut) > 200
    for link in links:
        first_four = " ".join(str(link["title"]).split(" ")[:4])
        assert link.get_text() == (f"{first_four} ..." if link in cut else link["title"])


def test_the_same_seed_gives_the_same_bytes_in_another_process_with_other_hashing(shop: Shop) -> None:
    script = "import bookclub_platform_tests.test_sandbox as t; print(t.digest(t.Shop(t.generate(1000, seed=0))))"
    assert printed_by(script) == digest(shop)


def test_another_seed_gives_another_shop(catalogue: Catalogue) -> None:
    other = generate(1000, seed=1)
    same = {book.title for book in catalogue.books} & {book.title for book in other.books}
    assert len(same) < 300
    assert not {book.upc for book in catalogue.books} & {book.upc for book in other.books}


def test_categories_are_fifty_and_very_unequal(catalogue: Catalogue) -> None:
    sizes = {words().genres[at].name: len(numbers) for at, numbers in catalogue.members.items()}
    assert len(sizes) == 50 and sum(sizes.values()) == 1000
    assert 130 <= max(sizes.values()) == sizes["Unsorted"] <= 170
    assert sum(size <= 3 for size in sizes.values()) >= 10
    assert sum(size > 20 for size in sizes.values()) >= 8


def test_prices_ratings_and_stock_lie_in_their_ranges_and_know_nothing_of_the_category(catalogue: Catalogue) -> None:
    assert all(1000 <= book.price_pence <= 5999 for book in catalogue.books)
    assert all(count > 150 for count in Counter(b.rating for b in catalogue.books).values())
    assert {b.rating for b in catalogue.books} == {1, 2, 3, 4, 5}
    assert {b.stock for b in catalogue.books} == set(range(1, 23))
    assert len({b.upc for b in catalogue.books}) == 1000
    assert all(re.fullmatch("[0-9a-f]{16}", b.upc) for b in catalogue.books)
    assert all(re.fullmatch(r"media/cache/(..)/(..)/\1\2[0-9a-f]{28}\.jpg", b.cover) for b in catalogue.books)


@pytest.mark.parametrize("seed", range(5))
def test_one_title_stands_twice_in_one_category_and_two_books_have_no_description(seed: int) -> None:
    shop = Shop(generate(300, seed))
    titles = Counter(book.title for book in shop.catalogue.books)
    assert sorted(titles.values())[-2:] == [1, 2]
    first, second = (book for book in shop.catalogue.books if titles[book.title] == 2)
    assert first.genre == second.genre and first.slug == second.slug and first.upc != second.upc
    pages = [shop.page(f"catalogue/{book.path}") for book in shop.catalogue.books]
    assert sum(page is not None and b'id="product_description"' in page.body for page in pages) == 298


def test_descriptions_are_folded_glued_and_seasoned_as_in_the_real_shop(catalogue: Catalogue) -> None:
    texts = [text for book in catalogue.books if (text := catalogue.description(book))]
    folded = [text for text in texts if text.endswith(" ...more")]
    assert 0.92 < len(folded) / len(texts) < 0.97
    for text in folded:
        again = text.find(f" {text[:60]}", 1)
        lead, whole = text[:again], text[again + 1 : -len(" ...more")]
        assert LEAD - 10 <= len(lead) <= LEAD + 60
        assert whole.startswith(lead) and whole[len(lead)].isalnum() and lead[-1].isalnum()
    glued = [text for text in texts if re.search(r"[a-z][.?!][A-Z]", text)]
    assert 0.4 < len(glued) / len(texts) < 0.75
    assert sum("\u00a0" in text for text in texts) > 50
    assert sum("\u2019" in text for text in texts) > 100
    assert any(not book.title.isascii() for book in catalogue.books)
    assert any(mark in text for text in texts for mark in ("\u00ad", "\ufeff", "\u2028"))


def test_blurbs_have_60_to_200_words_and_no_two_are_alike(catalogue: Catalogue) -> None:
    wholes = []
    for book in catalogue.books:
        text = catalogue.description(book)
        whole = text[text.find(f" {text[:60]}", 1) + 1 :].removesuffix(" ...more")
        wholes.append(whole)
        if text:
            assert 60 <= len(re.sub(r"([a-z.?!])([A-Z])", r"\1 \2", whole).split()) <= 200, text
            assert not re.search(r"[{}|]|\ba (?:[aei]|o(?!ne))|\ban uni|\bthe the\b|  ", text), text
    assert len(set(wholes)) == 1000 - 2  # the two without one, and the title that stands twice


def test_every_word_file_is_filled_as_the_patterns_expect() -> None:
    kinds = {kind for theme in words().themes.values() for kind in theme}
    for name, theme in words().themes.items():
        assert set(theme) == kinds and all(theme.values()), name
        assert all("{town}" in place for place in theme["places"]), name
        assert all(thing.count("|") == 1 for thing in theme["things"]), name
    for genre in words().genres:
        assert set(genre.modes) <= set(words().modes) and set(genre.themes) <= set(words().themes)
        assert (genre.share > 0) != (genre.few > 0)


def test_every_pattern_of_every_mode_can_be_filled() -> None:
    catalogue = generate(4000, seed=9)
    assert {book.mode for book in catalogue.books} == set(words().modes)
    assert sum(bool(catalogue.description(book)) for book in catalogue.books) == 3998


def test_books_of_a_theme_share_more_words_than_books_of_two_themes(catalogue: Catalogue) -> None:
    bags = [(b.theme, set(re.findall(r"[a-z]{5,}", catalogue.description(b).lower()))) for b in catalogue.books[:400]]
    pairs = [(a == b, len(x & y) / len(x | y)) for (a, x), (b, y) in combinations(bags, 2) if x | y]
    near = [overlap for is_same, overlap in pairs if is_same]
    far = [overlap for is_same, overlap in pairs if not is_same]
    assert sum(near) / len(near) > 1.7 * sum(far) / len(far)


def test_blurbs_are_not_kept_in_memory() -> None:
    tracemalloc.start()
    catalogue = generate(2000, seed=2)
    facts = tracemalloc.get_traced_memory()[0]
    size = sum(len(catalogue.description(book)) for book in catalogue.books)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert facts / 2000 < 1500  # bytes a book
    assert after - facts < size / 20


@pytest.mark.parametrize("books", [1, 2, 19, 99, 100])
def test_a_small_shop_is_whole_too(books: int) -> None:
    shop = Shop(generate(books, seed=3))
    assert len(shop.catalogue.without_description) == (2 if books >= 100 else 0)
    found = [
        link for start in categories(shop).values() for _, page in pages_from(shop, start) for link in page.select("h3")
    ]
    assert len(found) == books


def test_a_shop_without_books_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one book"):
        generate(0)
    command = [sys.executable, "-m", "bookclub_platform.sandbox", "--books", "0"]
    assert subprocess.run(command, capture_output=True, cwd=ROOT).returncode == 2


def test_pages_are_html_without_a_charset_in_utf_8(address: str) -> None:
    answer = requests.get(f"{address}/", timeout=10)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html"
    assert "£" in answer.content.decode("utf-8")


@pytest.mark.parametrize("path", ["/", "/catalogue/page-2.html", "cover"])
def test_an_unchanged_page_is_answered_with_304(address: str, path: str) -> None:
    if path == "cover":
        page = BeautifulSoup(requests.get(f"{address}/", timeout=10).content, "html.parser")
        path = "/" + str(page.select("img")[0]["src"])
    first = requests.get(address + path, timeout=10)
    assert first.headers["Last-Modified"]
    for known in (first.headers["ETag"], f'"other", W/{first.headers["ETag"]}', "*"):
        again = requests.get(address + path, headers={"If-None-Match": known}, timeout=10)
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert requests.get(address + path, headers={"If-None-Match": '"other"'}, timeout=10).content == first.content


def test_head_tells_the_same_as_get_without_a_body(address: str) -> None:
    get, head = (getattr(requests, method)(f"{address}/", timeout=10) for method in ("get", "head"))
    assert head.content == b""
    names = ["Content-Length", "Content-Type", "ETag"]
    assert [head.headers[name] for name in names] == [get.headers[name] for name in names]
    assert int(head.headers["Content-Length"]) == len(get.content)


@pytest.mark.parametrize("path", ABSENT)
def test_what_the_shop_does_not_have_is_404(address: str, path: str) -> None:
    answer = requests.get(address + path, timeout=10)
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "text/html")
    assert "404" in answer.text


def test_only_get_and_head_are_allowed(address: str) -> None:
    answer = requests.post(f"{address}/", timeout=10)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_a_cover_is_a_picture_of_its_own(address: str) -> None:
    page = BeautifulSoup(requests.get(f"{address}/", timeout=10).content, "html.parser")
    covers = [requests.get(f"{address}/{image['src']}", timeout=10) for image in page.select("img")]
    assert {cover.headers["Content-Type"] for cover in covers} == {"image/jpeg"}
    assert all(cover.content[:2] == b"\xff\xd8" and cover.content[-2:] == b"\xff\xd9" for cover in covers)
    assert len({cover.content for cover in covers}) == 20
    image = pytest.importorskip("PIL.Image")
    picture = image.open(BytesIO(covers[0].content))
    picture.load()
    assert picture.size == (64, 96)


def test_a_taken_port_is_told_and_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"{port}.*BOOKCLUB_SHOP_PORT"):
            serve(10, 0, "127.0.0.1", port, setting="BOOKCLUB_SHOP_PORT")


@pytest.mark.parametrize(("number", "mode"), [(signal.SIGINT, []), (signal.SIGTERM, ["--javascript"])])
def test_the_command_tells_its_address_once_it_listens_and_ends_cleanly_on(
    number: signal.Signals, mode: list[str]
) -> None:
    command = [sys.executable, "-m", "bookclub_platform.sandbox", "--books", "50", "--seed", "1", "--port", "0", *mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            found = re.fullmatch(r"(\d+) pages at (http://127\.0\.0\.1:\d+)/\n", line)
            assert found is not None, line + process.stderr.read()
            with requests.Session() as session:  # a connection kept open must not hold the end up
                answer = session.get(found[2], timeout=10)
                assert answer.status_code == 200 and ("shop.js" in answer.text) == bool(mode)
                process.send_signal(number)
                assert process.wait(timeout=10) == 0
            assert process.stdout.read() == "" and process.stderr.read() == ""
        finally:
            process.kill()


def test_the_sandbox_loads_neither_dagster_nor_pandas_nor_bs4() -> None:
    script = (
        "import sys, bookclub_platform.sandbox as s; print({'dagster', 'pandas', 'bs4', 'mlflow'} & set(sys.modules))"
    )
    assert printed_by(script) == "set()"
