"""Response models, as /docs shows them: rows and recommendations -> JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field
from pydantic_core import to_json

from serving.http.digits import MAX_ID

DataVersion = Annotated[
    str,
    Field(
        description="Changes whenever the catalogue changes. Responses with the same version agree with each other.",
        examples=["50"],
    ),
]


BookId = Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": MAX_ID})]
Stars = Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": 5})]
Few = Annotated[int, Field(json_schema_extra={"format": "int32"})]  # as Postgres keeps it


class ResponseModel(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(
        from_attributes=True,
        protected_namespaces=(),
        json_schema_serialization_defaults_required=True,  # a field that may be null is always present
    )

    def json_around(self, *fields: str) -> list[bytes]:
        """The JSON of a response split at the values of these fields, in their order: the parts before the first,
        between two, and after the last. Their values here are empty (null, 0), and a list keeps its brackets."""
        parts, rest = [], self.model_dump_json().encode()
        for field in fields:
            empty = to_json({field: getattr(self, field)})[1:-1]
            before, after = rest.split(empty)
            name = b'"%b":' % field.encode()
            is_list = empty.endswith(b"[]")
            parts.append(before + name + b"[" * is_list)
            rest = b"]" * is_list + after
        return [*parts, rest]


class Book(ResponseModel):
    """A book of the catalogue."""

    id: BookId = Field(description="Our id of the book. It never changes.", examples=[1])
    source: str = Field(description="The shop, file or API that the book comes from.", examples=["books_toscrape"])
    source_id: str = Field(description="The shop's own key: the UPC if there is one.", examples=["4f0bfbd7a6bd4c3f"])
    upc: str | None = Field(
        description="Universal Product Code; null if the shop shows none.", examples=["4f0bfbd7a6bd4c3f"]
    )
    title: str = Field(
        examples=["The Lighthouse at the End of Winter"], description="Full title, as on the shop's page."
    )
    category: str = Field(description="Slug of the category, for the parameter `category`.", examples=["health"])
    category_name: str = Field(description="Name of the category, for display.", examples=["Health"])
    price: float = Field(description="Price in units of `currency`, with up to two decimals.", examples=[51.77])
    currency: str = Field(description="Currency code (ISO 4217).", examples=["GBP"])
    rating: Stars | None = Field(description="Stars, 1 to 5; null if the shop shows none.", examples=[4])
    stock: Few | None = Field(description="Number of copies; null if the shop does not count them.", examples=[22])
    in_stock: bool = Field(description="Whether the book can be bought.")
    description: str | None = Field(
        description="Blurb, as plain text from the shop. Escape it before you insert it into HTML.",
        examples=["A keeper alone with the sea finds a letter that was never meant for her."],
    )
    num_reviews: Few | None = Field(description="Number of reviews in the shop; null if it does not say.", examples=[0])
    url: str = Field(
        description="URL of the book's page in the shop.", examples=["http://shop.example/catalogue/book_1/index.html"]
    )
    image_url: str | None = Field(
        description="URL of the cover in the shop; null if there is none.",
        examples=["http://shop.example/media/1.jpg"],
    )
    first_seen_at: datetime = Field(description="When a crawl first saw the book.")
    last_seen_at: datetime = Field(description="When a crawl last saw the book.")
    updated_at: datetime = Field(description="When any field of the book last changed.")
    delisted_at: datetime | None = Field(
        description="When the shop stopped showing the book; null while it is listed. A delisted book is in no list.",
        examples=[None],
    )


class CategoryCount(ResponseModel):
    """Number of books of a category."""

    category: str = Field(description="Slug, for the parameter `category`.", examples=["health"])
    category_name: str = Field(description="Name for display.", examples=["Health"])
    books: int = Field(description="Number of books.", examples=[16])


class RatingCount(ResponseModel):
    """Number of books with a rating."""

    rating: Stars | None = Field(description="Stars, 1 to 5; null: the shop shows none.", examples=[4])
    books: int = Field(description="Number of books.", examples=[179])


class PriceCount(ResponseModel):
    """Number of books in a price band. Empty bands are left out."""

    min_price: float = Field(description="Lowest price of the band, for the parameter `min_price`.", examples=[10.0])
    max_price: float | None = Field(
        description="Highest price of the band, for the parameter `max_price`; null: no upper end.", examples=[19.99]
    )
    books: int = Field(description="Number of books.", examples=[196])


class StockCount(ResponseModel):
    """Number of books that are in stock, or sold out."""

    in_stock: bool = Field(description="Whether these books can be bought.", examples=[True])
    books: int = Field(description="Number of books.", examples=[812])


class Facets(ResponseModel):
    """Counts for filter menus. Each facet counts the books that pass all filters except its own."""

    category: list[CategoryCount] = Field(description="Largest first.")
    rating: list[RatingCount] = Field(description="From five stars down; books without stars last.")
    price: list[PriceCount] = Field(description="Cheapest band first.")
    in_stock: list[StockCount] = Field(description="Books in stock first.")


class BookPage(ResponseModel):
    """One page of the catalogue."""

    items: list[Book] = Field(description="Books in the order of `sort`.")
    next: str | None = Field(
        description="`cursor` of the next page, an opaque string; null on the last page.", examples=["20"]
    )
    total: int = Field(description="Number of books that pass the filters, on all pages.", examples=[1000])
    facets: Facets | None = Field(None, description="Null unless the request has `facets=true`.")
    data_version: DataVersion


class BookState(ResponseModel):
    """Price, stars and stock of a book in one period."""

    held_from: datetime = Field(description="When a crawl first saw these values.")
    held_until: datetime | None = Field(
        description="When a crawl first saw other values; null: these are the present ones.", examples=[None]
    )
    price: float = Field(description="Price in units of `currency`.", examples=[51.77])
    rating: Stars | None = Field(description="Stars, 1 to 5; null if the shop showed none.", examples=[4])
    stock: Few | None = Field(description="Number of copies; null if the shop did not count them.", examples=[22])
    previous_price: float | None = Field(description="Price before; null in the first period.", examples=[49.5])
    previous_rating: Stars | None = Field(description="Stars before; null in the first period, too.", examples=[4])
    previous_stock: Few | None = Field(description="Copies before; null in the first period, too.", examples=[20])


class History(ResponseModel):
    """The history of price, stars and stock of a book."""

    book_id: BookId = Field(examples=[1], description="`id` of the book.")
    currency: str = Field(description="Currency code (ISO 4217) of all prices.", examples=["GBP"])
    items: list[BookState] = Field(description="Oldest first; the last item is the present state.")
    data_version: DataVersion


class TextPart(ResponseModel):
    """A part of a text. All pieces in a row are the whole text."""

    text: str = Field(
        description="Plain text from the shop. Escape it before you insert it into HTML.", examples=["The "]
    )
    is_match: bool = Field(description="Whether this piece matches the query, for highlighting.", examples=[False])


class SearchMatch(ResponseModel):
    """Where a book matches the query."""

    terms: list[str] = Field(
        description="The words of `q` that were found in the book, in lower case and without accents.",
        examples=[["lighthouse", "keeper"]],
    )
    title: list[TextPart] = Field(
        description="The full title, in pieces.",
        examples=[[{"text": "The ", "is_match": False}, {"text": "Lighthouse", "is_match": True}]],
    )
    snippet: list[TextPart] = Field(
        description="The part of the description with the most matches, in pieces; `…` where it is cut. Empty if "
        "there is no description.",
        examples=[[{"text": "A ", "is_match": False}, {"text": "keeper", "is_match": True}]],
    )


class SearchItem(Book):
    """A book that matches the query."""

    score: float = Field(description="How well the book matches, 0 to 1; higher is better.", examples=[0.62])
    matched: SearchMatch = Field(description="The matches, for highlighting.")


class SearchPage(ResponseModel):
    """One page of search results."""

    items: list[SearchItem] = Field(description="Best match first, or in the order of `sort`.")
    next: str | None = Field(
        description="`cursor` of the next page, an opaque string; null on the last page.", examples=["20"]
    )
    total: int = Field(
        description="Number of matching books that pass the filters, on all pages. Of more than 2,000 matches only "
        "the best 2,000 are considered.",
        examples=[37],
    )
    facets: Facets | None = Field(
        None, description="Counts over the best 2,000 matches. Null unless the request has `facets=true`."
    )
    model: ModelRef = Field(description="The model that searched.")
    data_version: DataVersion


class Category(ResponseModel):
    """A category with at least one listed book."""

    category: str = Field(description="Slug, for the parameter `category`.", examples=["health"])
    category_name: str = Field(description="Name for display.", examples=["Health"])
    books: int = Field(description="Number of listed books.", examples=[16])
    in_stock: int = Field(description="How many of them are in stock.", examples=[16])


class Categories(ResponseModel):
    """All categories, sorted by name."""

    items: list[Category] = Field(description="Categories with at least one listed book.")
    total: int = Field(description="Number of categories.", examples=[50])
    data_version: DataVersion


class ModelRef(ResponseModel):
    """A version of a model."""

    name: str = Field(description="Name in the registry.", examples=["tfidf_model"])
    version: str = Field(description="Version in the registry.", examples=["3"])
    run_id: str = Field(description="MLflow run that trained it.", examples=["5a1f0c6e4f0b4e5c9d7d3a1be2f0c1aa"])


class RecommendationReason(ResponseModel):
    """One reason: something that the two books share."""

    kind: Literal["term", "category", "embedding", "terms"] = Field(
        description="`term` (a word), `category`, `embedding` (similar topics), or `terms` (all remaining words "
        "together). With a sentence-embedding model, books added after the training have no `embedding`.",
        examples=["term"],
    )
    value: str = Field(
        description="For display. `term`: the word; `category`: its `category_name`; `embedding`: always `similar "
        "subjects`; `terms`: how many words, such as `11 more`.",
        examples=["lighthouse"],
    )
    share: float = Field(description="Its part of the score. The shares add up to the score.", examples=[0.13])


class Recommendation(ResponseModel):
    """A recommended book, with reasons."""

    book: Book = Field(
        description="The book.", examples=[{"id": 12, "title": "Letters from a Lighthouse Keeper", "price": 19.5}]
    )
    score: float = Field(
        description="Similarity, 0 to 1; higher is more similar. 0 for items of the `fallback`.", examples=[0.42]
    )
    why: list[RecommendationReason] = Field(
        description="Reasons, largest first; the remaining words come last as one reason (`terms`). Empty for items "
        "of the `fallback`.",
        examples=[
            [
                {"kind": "embedding", "value": "similar subjects", "share": 0.21},
                {"kind": "term", "value": "lighthouse", "share": 0.13},
                {"kind": "terms", "value": "3 more", "share": 0.08},
            ]
        ],
    )


# Why near books may be missing. Shops treat the causes differently: one resolves within seconds, another with a wider
# filter. An error status would be wrong for all (book and model exist), and would spoil the other 99 lists of a batch.
Emptiness = Literal["no_book_passes", "not_in_model", "nothing_in_common", "little_in_common"]
Fallback = Literal["well_rated_in_category", "well_rated"]


class _List(ResponseModel):
    items: list[Recommendation] = Field(
        description="Most similar first (with `diversity`, in the order of selection), then the items of the "
        "`fallback`. Up to `limit` items; fewer only if fewer books pass the filters. Without the book of the "
        "request, excluded books and delisted books, and with only one edition of each work."
    )
    reason: Emptiness | None = Field(
        None,
        description="Why similar books do not fill the list. `no_book_passes`: no book passes the filters, `items` is "
        "empty; use wider filters. `not_in_model`: the book was added seconds ago; retry. `nothing_in_common`: no "
        "book that passes the filters is similar. `little_in_common`: too few are. Null if similar books fill the "
        "list, or if it already has all books that pass.",
        examples=[None],
    )
    fallback: Fallback | None = Field(
        None,
        description="What fills the end of the list, with a score of 0: the best rated books that pass the filters, "
        "the book's own category first. `well_rated_in_category`: all of them are from that category; `well_rated`: "
        "not all. Null if there are no such items.",
        examples=[None],
    )


class BookRecommendations(_List):
    """The recommendations for one book of a batch."""

    book_id: BookId = Field(examples=[1], description="`id` of the book of the request.")


class _Versions(ResponseModel):
    model: ModelRef = Field(description="The model that this response is based on.")
    data_version: DataVersion
    ranked_data_version: str | None = Field(
        description="The data version that was ranked. For some seconds after a load it is older than `data_version`: "
        "delisted books are already gone, new books are not there yet. Null until the server has read the catalogue "
        "for the first time.",
        examples=["50"],
    )

    @computed_field(  # type: ignore[prop-decorator]  # as pydantic documents it
        description="`recommendation_id` for POST /feedback. It names the model and the data version, not this one "
        "response.",
        examples=["tfidf_model/1@50"],
    )
    @property
    def id(self) -> str:
        return f"{self.model.name}/{self.model.version}@{self.data_version}"


class Recommendations(BookRecommendations, _Versions):
    """Books similar to one book."""


class ReaderRecommendations(_List, _Versions):
    """Books for one reader."""


class BatchRecommendations(_Versions):
    """Books similar to each of several books."""

    results: list[BookRecommendations] = Field(description="One for each id of the request, in the same order.")


class Prediction(ResponseModel):
    """Ids of books similar to a book. The headers name the model and the data version."""

    book_id: BookId = Field(examples=[1], description="`id` of the book of the request.")
    ids: list[BookId] = Field(description="Most similar first; only listed books.", examples=[[12, 7, 30]])
