"""Response models of the statistics, as /docs shows them; results of core/stats.py -> these models."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from bookclub_platform.core.browse import band_ends
from bookclub_platform.core.stats import STARS, Tally
from serving.schemas.books import DataVersion, PriceCount, RatingCount, ResponseModel


class CurrencyCount(ResponseModel):
    """Number of listed books with a price in a currency."""

    currency: str = Field(description="Currency code (ISO 4217).", examples=["GBP"])
    books: int = Field(description="Number of books.", examples=[1000])


class Prices(ResponseModel):
    """Distribution of the prices in one currency. Its figures are null if there is no price."""

    currency: str = Field(
        description="Currency code (ISO 4217). Books in other currencies are not counted.", examples=["GBP"]
    )
    books: int = Field(description="Number of books with a price in this currency.", examples=[1000])
    min: float | None = Field(description="Lowest price.", examples=[10.0])
    lower_quartile: float | None = Field(description="A quarter of the books are cheaper.", examples=[22.11])
    median: float | None = Field(description="Half of the books are cheaper.", examples=[35.98])
    upper_quartile: float | None = Field(description="A quarter of the books are more expensive.", examples=[47.46])
    max: float | None = Field(description="Highest price.", examples=[59.99])
    mean: float | None = Field(description="Arithmetic mean.", examples=[35.07])


class Ratings(ResponseModel):
    """How many books have how many stars."""

    mean: float | None = Field(description="Mean of all ratings; null if there is none.", examples=[2.92])
    counts: list[RatingCount] = Field(description="1 to 5 stars, then null for books without stars.")


class Stock(ResponseModel):
    """Books in stock and number of copies."""

    in_stock: int = Field(description="Number of listed books in stock.", examples=[812])
    sold_out: int = Field(description="Number of listed books that are sold out.", examples=[188])
    copies: int = Field(description="Number of copies, as far as the shops count them.", examples=[8585])


class Figures(ResponseModel):
    """Counts, prices, stars and stock."""

    books: int = Field(description="Number of listed books.", examples=[1000])
    stock: Stock = Field(description="Books in stock and copies.")
    prices: Prices = Field(description="Prices in the most common currency.")
    ratings: Ratings = Field(description="How many of these books have how many stars.")
    price_rating_correlation: float | None = Field(
        description="Pearson correlation of price and stars, -1 to 1; null if one of them does not vary.",
        examples=[0.028],
    )


class Overview(Figures):
    """Statistics of the catalogue."""

    delisted: int = Field(description="Number of books that the shops no longer show.", examples=[0])
    categories: int = Field(description="Number of categories with a listed book.", examples=[50])
    sources: list[str] = Field(description="Sources with a listed book.", examples=[["books_toscrape"]])
    currencies: list[CurrencyCount] = Field(description="Most common first.")
    price_bands: list[PriceCount] = Field(
        description="Number of books by price, in the most common currency; cheapest first."
    )
    first_seen_at: datetime | None = Field(description="When a crawl first saw a book; null if there are no books.")
    updated_at: datetime | None = Field(description="When any book last changed.")
    data_version: DataVersion


class CategoryFigures(Figures):
    """Statistics of a category."""

    category: str = Field(description="Slug, for the parameter `category`.", examples=["health"])
    category_name: str = Field(description="Name for display.", examples=["Health"])


class CategoryStatistics(ResponseModel):
    """Statistics of all categories."""

    items: list[CategoryFigures] = Field(description="Categories with a listed book, sorted by name.")
    total: int = Field(description="Number of categories.", examples=[50])
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
