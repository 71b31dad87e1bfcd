"""The shapes of the statistics, as /docs shows them, and what core/stats.py names -> these shapes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from bookclub_platform.core.browse import band_ends
from bookclub_platform.core.stats import STARS, Tally
from serving.schemas import Answer, DataVersion, PriceCount, RatingCount


class CurrencyCount(Answer):
    """How many listed books are priced in a currency."""

    currency: str = Field(description="ISO 4217.", examples=["GBP"])
    books: int = Field(description="How many.", examples=[1000])


class Prices(Answer):
    """How prices in one currency are distributed; null where there is none."""

    currency: str = Field(description="ISO 4217; books in another are left out.", examples=["GBP"])
    books: int = Field(description="How many books have a price in it.", examples=[1000])
    min: float | None = Field(description="Lowest.", examples=[10.0])
    lower_quartile: float | None = Field(description="A quarter of the books cost less.", examples=[22.11])
    median: float | None = Field(description="Half of the books cost less.", examples=[35.98])
    upper_quartile: float | None = Field(description="A quarter of the books cost more.", examples=[47.46])
    max: float | None = Field(description="Highest.", examples=[59.99])
    mean: float | None = Field(description="Arithmetic mean.", examples=[35.07])


class Ratings(Answer):
    """How stars are distributed."""

    mean: float | None = Field(description="Mean of those that are shown; null: none are.", examples=[2.92])
    counts: list[RatingCount] = Field(description="1 to 5 stars, then null for the books that show none.")


class Stock(Answer):
    """Copies and the books that have any."""

    in_stock: int = Field(description="Listed books that can be bought.", examples=[812])
    sold_out: int = Field(description="Listed books that cannot.", examples=[188])
    copies: int = Field(description="All copies that the shops count.", examples=[8585])


class Figures(Answer):
    """How many books, at which prices, with how many stars."""

    books: int = Field(description="Listed books.", examples=[1000])
    stock: Stock = Field(description="Books and copies at hand.")
    prices: Prices = Field(description="In the commonest currency.")
    ratings: Ratings = Field(description="Stars.")
    price_rating_correlation: float | None = Field(
        description="Pearson's correlation of price and stars, -1 to 1; null where either does not vary.",
        examples=[0.028],
    )


class Overview(Figures):
    """The catalogue in figures."""

    delisted: int = Field(description="Books that the shops no longer show.", examples=[0])
    categories: int = Field(description="Categories with a listed book.", examples=[50])
    sources: list[str] = Field(description="Shops with a listed book.", examples=[["books_toscrape"]])
    currencies: list[CurrencyCount] = Field(description="The commonest first.")
    price_bands: list[PriceCount] = Field(description="Books by price in the commonest currency, the cheapest first.")
    first_seen_at: datetime | None = Field(description="When a crawl first saw a book, UTC; null: never yet.")
    updated_at: datetime | None = Field(description="When what a shop says of a book last changed, UTC.")
    data_version: DataVersion


class CategoryFigures(Figures):
    """A category in figures."""

    category: str = Field(description="Slug; what `/books?category=` takes.", examples=["science-fiction"])
    category_name: str = Field(description="The category as readers see it.", examples=["Science Fiction"])


class CategoryStatistics(Answer):
    """All categories in figures."""

    items: list[CategoryFigures] = Field(description="Those with a listed book, by name.")
    total: int = Field(description="How many categories.", examples=[50])
    data_version: DataVersion


def figures(tally: Tally, currency: str) -> dict[str, Any]:
    """The fields of Figures."""
    lower, median, upper = tally.quartiles or (None, None, None)
    return {
        "books": tally.books,
        "stock": Stock(in_stock=tally.in_stock, sold_out=tally.books - tally.in_stock, copies=tally.copies),
        "prices": Prices(
            currency=currency,
            books=tally.priced,
            min=_units(tally.low),
            lower_quartile=_units(lower),
            median=_units(median),
            upper_quartile=_units(upper),
            max=_units(tally.high),
            mean=tally.mean,
        ),
        "ratings": Ratings(
            mean=tally.mean_rating,
            counts=[
                RatingCount(rating=stars, books=books)
                for stars, books in [*zip(STARS, tally.stars, strict=True), (None, tally.unrated)]
            ],
        ),
        "price_rating_correlation": tally.correlation,
    }


def _units(hundredths: float | None) -> float | None:
    return None if hundredths is None else hundredths / 100


def price_bands(bands: Sequence[tuple[int, int]]) -> list[PriceCount]:
    """(band, books) -> the bands with their ends."""
    ends = ((*band_ends(band), books) for band, books in bands)
    return [PriceCount(min_price=low, max_price=high, books=books) for low, high, books in ends]
