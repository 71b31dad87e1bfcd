"""Segments: planted subjects are found, kept with the model, served with the books of now. And the ETag of lists."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from bookclub_platform.core.errors import ArtifactInvalid
from bookclub_platform.models import BookText, Tfidf
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import THEMES, World, get, ids_of, problem
from serving.app import create_app

world, client, after = given.world, given.client, given.after


def rows(number: int = 200) -> list[BookText]:
    """Books of four subjects, each book told by words of its own subject, in a category that says nothing of it."""
    subjects = list(THEMES.values())
    return [
        BookText(at + 1, str(at), " ".join(subjects[at % 4][(at // 4 + step) % 8] for step in (0, 1, 3)), "all", "")
        for at in range(number)
    ]


def test_books_of_a_segment_are_about_one_subject_whatever_their_category() -> None:
    model = Tfidf().fit(rows())
    assert model.segments_ is not None and model.embedding_ is not None
    segment, _ = model.segments_.nearest(model.embedding_)
    subject = np.arange(200) % 4
    for at, columns in enumerate(model.segments_.terms):
        subjects = Counter(subject[segment == at].tolist())
        named = {model.vocabulary_[column].lower() for column in columns if column >= 0}
        assert len(subjects) == 1, subjects
        assert named and named <= set(THEMES[list(THEMES)[next(iter(subjects))]])
    sizes = np.bincount(segment)
    assert sizes.sum() == 200 and (np.diff(sizes) <= 0).all()


def test_the_same_books_give_the_same_segments_and_a_file_keeps_them(tmp_path: Path) -> None:
    first, again = Tfidf().fit(rows()), Tfidf().fit(rows()[::-1])
    first.save(tmp_path)
    for other in (again, Tfidf.load(tmp_path), first.fold(rows()[:3])):
        assert first.segments_ is not None and other.segments_ is not None
        assert all((one == two).all() for one, two in zip(first.segments_, other.segments_, strict=True))


@pytest.mark.parametrize(
    ("number", "options"), [(4, {"min_df": 1}), (200, {"embedding": "none"}), (200, {"embedding_up_to": 10})]
)
def test_a_handful_of_books_or_those_without_an_embedding_have_no_segments(
    number: int, options: dict[str, object], tmp_path: Path
) -> None:
    model = Tfidf(**options).fit(rows(number))  # type: ignore[arg-type]
    model.save(tmp_path)
    assert model.segments_ is None and Tfidf.load(tmp_path).segments_ is None


def test_segments_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    model = Tfidf().fit(rows())
    sound = model.segments_
    assert sound is not None
    faults = [
        sound._replace(centres=sound.centres * np.float32("nan")),
        sound._replace(centres=sound.centres[:, :1]),
        sound._replace(terms=sound.terms + len(model.vocabulary_)),
        sound._replace(terms=sound.terms[:1]),
    ]
    for at, fault in enumerate(faults):
        model.segments_ = fault
        model.save(tmp_path / str(at))
        with pytest.raises(ArtifactInvalid, match="segments"):
            Tfidf.load(tmp_path / str(at))


def test_every_book_is_in_one_segment_and_pages_neither_repeat_nor_hide_one(client: httpx.Client) -> None:
    found = get(client, "/segments")
    assert found["total"] == len(found["items"]) and {len(segment["examples"]) for segment in found["items"]} == {3}
    paged = []
    for segment in found["items"]:
        path, cursor, own = f"/segments/{segment['id']}", {}, []
        while True:
            page = get(client, path, limit=5, **cursor)
            own += [book["id"] for book in page["items"]]
            if page["next"] is None:
                break
            cursor = {"cursor": page["next"]}
        if cursor:
            other = client.get(path, params={"in_stock": "true", **cursor})
            assert given.problem(other, 409)["type"].endswith(":other-filters")
            before = cursor["cursor"].partition("-")[0]  # as cursors were
            assert get(client, path, limit=5, cursor=before) == page
        assert own == sorted(own) and len(own) == page["total"] == segment["books"]
        assert {book["id"] for book in segment["examples"]} <= set(own)
        assert get(client, path, in_stock="true")["total"] == segment["in_stock"]
        assert get(client, path, in_stock="false")["total"] == segment["books"] - segment["in_stock"]
        paged += own
    assert len(paged) == len(set(paged)) == 48


def test_a_book_that_came_since_is_in_a_segment_and_one_that_left_is_not(after: World) -> None:
    books = given.catalogue()["sea"]
    new = replace(books[0], source_id="sea-new", upc="sea-new", title="Whale and storm", url="http://127.0.0.1/new")

    def ids(path: str) -> set[int]:
        return {book["id"] for book in get(after.client, path, limit=100)["items"]}

    def in_segments() -> set[int]:
        return set().union(*(ids(f"/segments/{found['id']}") for found in get(after.client, "/segments")["items"]))

    before = ids("/books")
    given.load(after.database_url, "sea", [*books[1:], new])
    listed = ids("/books")
    assert len(before - listed) == len(listed - before) == 1
    given.wait_for(lambda: in_segments() == listed)


def test_a_segment_of_another_model_is_told_to_be_gone_and_a_model_without_any_says_why(after: World) -> None:
    old = get(after.client, "/segments")["items"][0]["id"]
    plain = Tfidf(embedding="none").fit(rows(48))
    version = after.registry.publish(plain, plain.parameters, {}, {}, artifact_root=None)
    after.registry.promote(version)
    given.wait_for(lambda: given.model_version(after.client) == version.version)
    assert "other-model" in problem(after.client.get(f"/segments/{old}"), 404)["type"]
    assert "no-segments" in problem(after.client.get("/segments"), 404)["type"]
    after.registry.promote(after.first)
    given.wait_for(lambda: given.model_version(after.client) == after.first.version)
    assert "unknown-segment" in problem(after.client.get(f"/segments/{old.split('-')[0]}-99"), 404)["type"]


@pytest.mark.parametrize("answer_cache_mb", [0, 4])
def test_the_etag_of_a_list_follows_stock_delisting_new_books_and_the_model(after: World, answer_cache_mb: int) -> None:
    settings = given.settings(after.home, answer_cache_mb=answer_cache_mb)
    books, path = given.catalogue()["sea"], f"/books/{ids_of(after)[0]}/recommendations"
    new = replace(books[5], source_id="sea-new", upc="sea-new", title="The New and the whale", url="http://127.0.0.1/n")
    sold_out = replace(books[7], stock=0, in_stock=False)
    states = [[*books[:7], sold_out, *books[8:]], books[:-3], [*books, new]]
    with given.serving(create_app(settings, after.database_url, after.tracking_uri)) as client:
        given.wait_for(lambda: given.model_version(client) == after.first.version)
        seen: dict[str, list[object]] = {}

        def look() -> str:
            """The tag of the list of now; the same tag must never come with other books."""
            answer = client.get(path, params={"limit": 30})
            shown = [(item["book"]["id"], item["score"]) for item in answer.json()["items"]]
            assert seen.setdefault(answer.headers["etag"], shown) == shown
            tag: str = answer.headers["etag"]
            return tag

        def settled() -> str:
            """Once the line-up is that of the newest data."""
            given.wait_for(lambda: look() == look() and _is_ranked_on_newest(client, path))
            return look()

        tags = [settled()]
        for state in states:
            given.load(after.database_url, "sea", state)
            given.wait_for(lambda: look() != tags[-1])
            tags.append(settled())
        after.registry.promote(after.sea)
        given.wait_for(lambda: given.model_version(client) == after.sea.version)
        tags.append(settled())
        assert len(set(tags)) == len(tags)
        assert client.get(path, params={"limit": 30}, headers={"If-None-Match": tags[-1]}).status_code == 304
        assert client.get(path, params={"limit": 30}, headers={"If-None-Match": tags[0]}).status_code == 200
        assert client.get(path, params={"limit": 29}, headers={"If-None-Match": tags[-1]}).status_code == 200


def _is_ranked_on_newest(client: httpx.Client, path: str) -> bool:
    found = get(client, path, limit=30)
    return bool(found["data_version"] == found["ranked_data_version"] == get(client, "/books")["data_version"])
