"""models/_samples.py: the page of sample recommendations, by one model and by two."""

from __future__ import annotations

import html
import re

from bookclub_platform.models import Tfidf
from bookclub_platform.models._samples import samples_page
from bookclub_platform_tests.test_tfidf import SHELF, place, shelf


def test_every_category_stands_on_the_page_with_its_lists_and_reasons() -> None:
    rows = shelf()
    model = Tfidf().fit(rows)
    page = html.unescape(samples_page({"this model": model}, rows, books=8, limit=2))
    titles = re.findall(r"<h2>(.*?) <span", page)
    assert len(titles) == 8
    assert len({category for title, _, category in SHELF if title in titles}) == len({row.category for row in rows})
    for title in titles:
        for near in model.recommend(place(title), 2):
            assert f"{rows[near.book_id - 100].title} <span" in page and f" {near.score:.2f}<div" in page
    assert 'class="new"' not in page


def test_what_two_models_list_differently_is_marked_and_books_new_to_one_are_said_to_be() -> None:
    rows = shelf()
    before, after = Tfidf().fit(rows[:20]), Tfidf(category_weight=0.0).fit(rows)
    page = samples_page({"champion": before, "challenger": after}, rows, books=len(rows))
    assert page.count("<h3>champion</h3>") == page.count("<h3>challenger</h3>") == len(rows)
    assert 'class="new"' in page
    assert page.count("unknown to it") == sum(
        row.id not in model.book_ids or not model.recommend(row.id, 1) for row in rows for model in (before, after)
    )


def test_text_of_a_shop_cannot_become_markup() -> None:
    rows = [row._replace(title=f"<script>{row.title}", category_name='"><img>') for row in shelf()]
    page = samples_page({"<b>": Tfidf().fit(rows)}, rows)
    assert "<script" not in page and "<img" not in page and "<b>" not in page
