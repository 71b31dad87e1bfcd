"""Book, its description and pods of others -> the body of the book's own page."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from .book import Book
from .html_frame import WARNING, text
from .html_pod import RATINGS, STARS


def detail(book: Book, path: str, description: str, viewed: Iterable[str]) -> str:
    """The body of a book's own page; `viewed` are the pods of other books at its foot."""
    return f"""        <div class="container-fluid page">
            <div class="page_inner">

{path}

<div id="messages">

</div>

                <div class="content">

                    <div id="promotions">

                    </div>

                    <div id="content_inner">

<article class="product_page">

    <div class="row">

        <div class="col-sm-6">
        <div id="product_gallery" class="carousel">
            <div class="thumbnail">
                <div class="carousel-inner">
                    <div class="item active">

                            <img src="../../{book.cover}" alt="{escape(book.title)}" />

                    </div>
                </div>
            </div>
        </div>
        </div>

{_main(book)}

    </div>

{_described(description)}
{_facts(book)}
        <section>
            <div id="reviews" class="sub-header">
            </div>
        </section>
{_viewed(viewed)}
</article>
</div>
                </div>
            </div>
        </div>"""


def _main(book: Book) -> str:
    return f"""        <div class="col-sm-6 product_main">

            <h1>{text(book.title)}</h1>

        <p class="price_color">{book.price}</p>

<p class="instock availability">
    <i class="icon-ok"></i>

        In stock ({book.stock} available)

</p>

    <p class="star-rating {RATINGS[book.rating]}">
{STARS}

        <!-- <small><a href="/catalogue/{book.path.removesuffix("index.html")}reviews/">
                    0 customer reviews
        </a></small>
         -->&nbsp;
    </p>

            <hr/>

            {WARNING}

        </div>"""


def _described(description: str) -> str:
    if not description:
        return ""
    return f"""
        <div id="product_description" class="sub-header">
            <h2>Product Description</h2>
        </div>
        <p>{text(description)}</p>
"""


def _facts(book: Book) -> str:
    rows = {
        "UPC": book.upc, "Product Type": "Books", "Price (excl. tax)": book.price, "Price (incl. tax)": book.price,
        "Tax": "£0.00", "Availability": f"In stock ({book.stock} available)", "Number of reviews": "0",
    }  # fmt: skip
    cells = "\n".join(
        f"        <tr>\n            <th>{name}</th>\n            <td>{value}</td>\n        </tr>"
        for name, value in rows.items()
    )
    return f"""
    <div class="sub-header">
        <h2>Product Information</h2>
    </div>
    <table class="table table-striped">
{cells}
    </table>
"""


def _viewed(pods: Iterable[str]) -> str:
    items = "\n".join(f'<li class="col-xs-6 col-sm-4 col-md-3 col-lg-2">\n{pod}\n</li>' for pod in pods)
    if not items:
        return ""
    return f"""
        <div class="sub-header">
            <h2>Products you recently viewed</h2>
        </div>
        <ul class="row">
{items}
        </ul>
"""
