"""The shapes of the answers, as /docs shows them: rows and recommendations -> JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field
from pydantic_core import to_json

from serving.digits import MAX_ID

DataVersion = Annotated[
    str, Field(description="Changes whenever the catalogue changes: answers of one version agree.", examples=["50"])
]


BookId = Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": MAX_ID})]
Stars = Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": 5})]
Few = Annotated[int, Field(json_schema_extra={"format": "int32"})]  # as Postgres keeps it


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(
        from_attributes=True,
        protected_namespaces=(),
        json_schema_serialization_defaults_required=True,  # a field that may be null is there all the same
    )

    def json_around(self, *fields: str) -> list[bytes]:
        """The JSON of an answer without the values of these fields, in their order: what stands before the first,
        between two, and behind the last. Their values are empty (null, 0), and a list keeps its brackets."""
        parts, rest = [], self.model_dump_json().encode()
        for field in fields:
            empty = to_json({field: getattr(self, field)})[1:-1]
            before, after = rest.split(empty)
            name = b'"%b":' % field.encode()
            is_list = empty.endswith(b"[]")
            parts.append(before + name + b"[" * is_list)
            rest = b"]" * is_list + after
        return [*parts, rest]


class Book(Answer):
    """A book as the catalogue keeps it."""

    id: BookId = Field(description="Ours; stays the same for as long as the book is known.", examples=[1])
    source: str = Field(description="The shop that it was found in.", examples=["books_toscrape"])
    source_id: str = Field(description="The shop's own key: the UPC where there is one.", examples=["4f0bfbd7a6bd4c3f"])
    upc: str | None = Field(
        description="Universal product code; null where the shop shows none.", examples=["4f0bfbd7a6bd4c3f"]
    )
    title: str = Field(examples=["The Lighthouse at the End of Winter"], description="Whole, as on its page.")
    category: str = Field(description="Slug; what `?category=` takes.", examples=["science-fiction"])
    category_name: str = Field(description="The category as readers see it.", examples=["Science Fiction"])
    price: float = Field(description="In units of `currency`, at most two decimals.", examples=[51.77])
    currency: str = Field(description="ISO 4217.", examples=["GBP"])
    rating: Stars | None = Field(description="Stars, 1 to 5; null where the shop shows none.", examples=[4])
    stock: Few | None = Field(description="Copies at hand; null where the shop says only whether any.", examples=[22])
    in_stock: bool = Field(description="Whether it can be bought.")
    description: str | None = Field(
        description="Plain text from the shop: escape it before it goes into a page.",
        examples=["A keeper alone with the sea finds a letter that was never meant for her."],
    )
    num_reviews: Few | None = Field(
        description="How many readers reviewed it in the shop; null where it does not say.", examples=[0]
    )
    url: str = Field(
        description="The book's page in the shop.", examples=["http://shop.example/catalogue/book_1/index.html"]
    )
    image_url: str | None = Field(
        description="Its cover, a whole address in the shop; null where it shows none.",
        examples=["http://shop.example/media/1.jpg"],
    )
    first_seen_at: datetime = Field(description="When a crawl first saw it, UTC.")
    last_seen_at: datetime = Field(description="When a crawl last saw it, UTC.")
    updated_at: datetime = Field(description="When anything about it last changed, UTC.")
    delisted_at: datetime | None = Field(
        description="When the shop stopped showing it, UTC; null while it is listed. Never listed or recommended then.",
        examples=[None],
    )


class CategoryCount(Answer):
    """How many books a category has."""

    category: str = Field(description="Slug; what `category=` takes.", examples=["science-fiction"])
    category_name: str = Field(description="The category as readers see it.", examples=["Science Fiction"])
    books: int = Field(description="How many.", examples=[16])


class RatingCount(Answer):
    """How many books have that many stars."""

    rating: Stars | None = Field(description="Stars, 1 to 5; null: the shop shows none.", examples=[4])
    books: int = Field(description="How many.", examples=[179])


class PriceCount(Answer):
    """How many books have a price within a band; bands without a book are left out."""

    min_price: float = Field(description="Lowest price of the band; what `min_price=` takes.", examples=[10.0])
    max_price: float | None = Field(
        description="Highest price of the band; what `max_price=` takes; null: there is none.", examples=[19.99]
    )
    books: int = Field(description="How many.", examples=[196])


class StockCount(Answer):
    """How many books can be bought, or cannot."""

    in_stock: bool = Field(description="Whether they can be bought.", examples=[True])
    books: int = Field(description="How many.", examples=[812])


class Facets(Answer):
    """What there is to choose from: each facet counts the books that pass all filters but those on itself."""

    category: list[CategoryCount] = Field(description="The largest first.")
    rating: list[RatingCount] = Field(description="From five stars down; those without any last.")
    price: list[PriceCount] = Field(description="From the cheapest band up.")
    in_stock: list[StockCount] = Field(description="Those that can be bought first.")


class BookPage(Answer):
    """One page of the catalogue."""

    items: list[Book] = Field(description="In the order that `sort` asks for.")
    next: str | None = Field(
        description="`cursor` of the next page, a text to be passed on as it is; null on the last.", examples=["20"]
    )
    total: int = Field(description="Books that pass the filters, on all pages.", examples=[1000])
    facets: Facets | None = Field(None, description="Null unless `facets=true` asks for them.")
    data_version: DataVersion


class State(Answer):
    """What held of a book from one crawl's sighting to another's."""

    held_from: datetime = Field(description="When a crawl first saw it so, UTC.")
    held_until: datetime | None = Field(
        description="When a crawl first saw it otherwise, UTC; null: it holds.", examples=[None]
    )
    price: float = Field(description="In units of the book's `currency`.", examples=[51.77])
    rating: Stars | None = Field(description="Stars, 1 to 5; null where the shop showed none.", examples=[4])
    stock: Few | None = Field(description="Copies at hand; null where the shop did not count.", examples=[22])
    previous_price: float | None = Field(description="Before; null in the first state.", examples=[49.5])
    previous_rating: Stars | None = Field(description="Before; null in the first state too.", examples=[4])
    previous_stock: Few | None = Field(description="Before; null in the first state too.", examples=[20])


class History(Answer):
    """How price, stars and stock of a book changed."""

    book_id: BookId = Field(examples=[1], description="The book asked about.")
    currency: str = Field(description="ISO 4217, of all the prices.", examples=["GBP"])
    items: list[State] = Field(description="Oldest first; the last is what holds.")
    data_version: DataVersion


class Piece(Answer):
    """A part of a text. All pieces of a text, put together, are the text."""

    text: str = Field(description="Plain text from the shop: escape it before it goes into a page.", examples=["The "])
    is_match: bool = Field(description="Whether it is what was searched for: show it marked.", examples=[False])


class Matched(Answer):
    """Where a book has what was searched for."""

    terms: list[str] = Field(
        description="The words of `q` that were found, in small letters and as they were sought; not those that only "
        "were near in the model's space.",
        examples=[["lighthouse", "keeper"]],
    )
    title: list[Piece] = Field(
        description="The whole title in pieces.",
        examples=[[{"text": "The ", "is_match": False}, {"text": "Lighthouse", "is_match": True}]],
    )
    snippet: list[Piece] = Field(
        description="The part of the description that has the most of it, in pieces; `…` where it is cut. Empty "
        "without a description.",
        examples=[[{"text": "A ", "is_match": False}, {"text": "keeper", "is_match": True}]],
    )


class SearchItem(Book):
    """A book that was found."""

    score: float = Field(description="How well it fits, 0 to 1; higher fits better.", examples=[0.62])
    matched: Matched = Field(description="What of the question stands where in it.")


class SearchPage(Answer):
    """One page of what was found."""

    items: list[SearchItem] = Field(description="The best first, or in the order that `sort` asks for.")
    next: str | None = Field(
        description="`cursor` of the next page, a text to be passed on as it is; null on the last.", examples=["20"]
    )
    total: int = Field(
        description="Books with a word of `q` that pass the filters, on all pages; of more than 2,000 of these only "
        "the best 2,000 are looked at.",
        examples=[37],
    )
    facets: Facets | None = Field(
        None, description="Of the books with a word of `q`, the best 2,000. Null unless `facets=true` asks for them."
    )
    model: ModelRef = Field(description="The one whose space was searched.")
    data_version: DataVersion


class Category(Answer):
    """A category that has a listed book."""

    category: str = Field(description="Slug; what `/books?category=` takes.", examples=["science-fiction"])
    category_name: str = Field(description="The category as readers see it.", examples=["Science Fiction"])
    books: int = Field(description="Listed books in it.", examples=[16])
    in_stock: int = Field(description="Those of them that can be bought.", examples=[16])


class Categories(Answer):
    """All categories, by name."""

    items: list[Category] = Field(description="Those with a listed book.")
    total: int = Field(description="How many categories.", examples=[50])
    data_version: DataVersion


class ModelRef(Answer):
    """Which model answered."""

    name: str = Field(description="Registered name.", examples=["tfidf_model"])
    version: str = Field(description="Registered version.", examples=["3"])
    run_id: str = Field(description="The MLflow run that made it.", examples=["5a1f0c6e4f0b4e5c9d7d3a1be2f0c1aa"])


class ChampionFacts(ModelRef):
    """The model in use, and where it comes from."""

    books: int = Field(description="How many books it was trained on and can recommend.", examples=[1000])
    tags: dict[str, str] = Field(
        description="Each where it is known: the `data_version` that it was trained on, `judged_against` which version "
        "and `judged_by` what, and when it was `promoted_at`, UTC.",
        examples=[{"data_version": "50", "judged_against": "2"}],
    )
    figures: dict[str, float] = Field(
        description="How it was judged: the metrics of its MLflow run.",
        examples=[{"coverage": 1.0, "largest_exposure": 0.026}],
    )
    registered_at: datetime = Field(description="When its version was registered, UTC.")
    serving_since: datetime = Field(description="When this server took it up, UTC.")
    is_confirmed: bool = Field(
        description="Whether the registry has named it as champion since this server began. False: the registry has "
        "not answered yet, and this is the copy of the one last in use.",
        examples=[True],
    )


class Why(Answer):
    """One thing that the two books share."""

    kind: Literal["term", "category", "embedding", "terms"] = Field(
        description="`term`, `category`, `embedding` (what the texts are about, past words; a book that came after the "
        "training has none in a model with sentence embeddings), or `terms`: the rest.",
        examples=["term"],
    )
    value: str = Field(
        description="For readers, in English but for the shop's own words: of a `term` the word, of a `category` its "
        "`category_name`, of `embedding` always `similar subjects`, of `terms` how many there are, as `11 more`.",
        examples=["lighthouse"],
    )
    share: float = Field(description="How much of the score it makes, in the score's own unit.", examples=[0.13])


class Recommendation(Answer):
    """A book and why it is here."""

    book: Book = Field(
        description="All of it.", examples=[{"id": 12, "title": "Letters from a Lighthouse Keeper", "price": 19.5}]
    )
    score: float = Field(
        description="Nearness, 0 to 1; higher is nearer. 0 for what `fallback` names.", examples=[0.42]
    )
    why: list[Why] = Field(
        description="The largest reasons first, then the rest as one (`terms`); their shares add up to the score. "
        "Empty for what `fallback` names.",
        examples=[
            [
                {"kind": "embedding", "value": "similar subjects", "share": 0.21},
                {"kind": "term", "value": "lighthouse", "share": 0.13},
                {"kind": "terms", "value": "3 more", "share": 0.08},
            ]
        ],
    )


# There can be nothing near for causes that a shop treats differently: one heals within seconds, one by a wider filter.
# An error status would be wrong for all (book and model exist), and in a batch would spoil the other 99 lists.
Emptiness = Literal["no_book_passes", "not_in_model", "nothing_in_common", "little_in_common"]
Fallback = Literal["well_rated_in_category", "well_rated"]


class _List(Answer):
    items: list[Recommendation] = Field(
        description="Nearest first, or, with `diversity`, in the order of choice; then what `fallback` names. `limit` "
        "of them, or all that pass the filters; never what was asked about or excluded, never a delisted book, and of "
        "several editions of a work one."
    )
    reason: Emptiness | None = Field(
        None,
        description="Why near books do not fill the list: `no_book_passes` (there is none but those excluded that "
        "passes the filters, and no item: ask with wider ones), `not_in_model` (the book came seconds ago; ask again), "
        "`nothing_in_common` (no book that passes the filters shares anything with it) or `little_in_common` (too few "
        "do). Null when they do, or when the list has all books that pass.",
        examples=[None],
    )
    fallback: Fallback | None = Field(
        None,
        description="What the items with a score of 0 are, after the near ones: the best rated books that pass the "
        "filters, those of the book's own category first. `well_rated_in_category`: all are of that; `well_rated`: not "
        "all. Null when there are no such items.",
        examples=[None],
    )


class BookRecommendations(_List):
    """The list of one book of a batch."""

    book_id: BookId = Field(examples=[1], description="The book asked about.")


class _Versions(Answer):
    model: ModelRef = Field(description="The one that all of this answer is from.")
    data_version: DataVersion
    ranked_data_version: str | None = Field(
        description="The state of the catalogue whose books were ranked. For some seconds after a load it is an "
        "earlier one than `data_version`: books that left are gone already, new ones are not there yet. Null while "
        "the server has not read the catalogue since it began.",
        examples=["50"],
    )

    @computed_field(  # type: ignore[prop-decorator]  # as pydantic documents it
        description="What /feedback takes as `recommendation_id`. It names model and catalogue, not this one answer.",
        examples=["tfidf_model/3@50"],
    )
    @property
    def id(self) -> str:
        return f"{self.model.name}/{self.model.version}@{self.data_version}"


class Recommendations(BookRecommendations, _Versions):
    """Books like one book."""


class ReaderRecommendations(_List, _Versions):
    """Books for one reader."""


class BatchRecommendations(_Versions):
    """Books like each of several books."""

    results: list[BookRecommendations] = Field(description="One for each id asked, in the order asked.")


class Prediction(Answer):
    """The ids of the books like a book; the headers name model and data version."""

    book_id: BookId = Field(examples=[1], description="The book asked about.")
    ids: list[BookId] = Field(description="Nearest first; listed books alone.", examples=[[12, 7, 30]])


class Health(Answer):
    """The process answers."""

    status: Literal["ok"] = Field("ok", description="Nothing else.")


class Check(Answer):
    """What one dependency said."""

    ok: bool = Field(description="Whether it does what it is needed for.")
    detail: str = Field(description="What it said, or what is wrong.", examples=["tfidf_model version 3"])


class Readiness(Answer):
    """Every dependency, asked just now."""

    status: Literal["ready", "not ready"] = Field(
        description="`ready` while books and recommendations are answered, even if the registry is away or the "
        "disk full."
    )
    checks: dict[str, Check] = Field(
        description="By dependency.",
        examples=[
            {
                "database": {"ok": True, "detail": "data version 50, in 2 ms"},
                "model": {"ok": True, "detail": "tfidf_model version 3, 1000 books"},
                "registry": {"ok": True, "detail": "asked 1 s ago"},
                "disk": {"ok": True, "detail": "it can be written to, and there is room"},
                "quotas": {"ok": True, "detail": "all workers count together"},
            }
        ],
    )
