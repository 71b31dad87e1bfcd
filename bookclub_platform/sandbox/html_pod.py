"""Book -> `article.product_pod`, the shape in which listings and "recently viewed" show it."""

from __future__ import annotations

from html import escape

from .book import Book
from .html_frame import text

RATINGS = ("Zero", "One", "Two", "Three", "Four", "Five")
STARS = "\n".join(['        <i class="icon-star"></i>'] * 5)


def pod(book: Book, catalogue: str, root: str) -> str:
    """One book on a listing: its title is cut to four words, and the stock is not told."""
    href, title = f"{catalogue}{book.path}", escape(book.title)
    return f"""    <article class="product_pod">

            <div class="image_container">

                    <a href="{href}"><img src="{root}{book.thumbnail}" alt="{title}" class="thumbnail"></a>

            </div>

                <p class="star-rating {RATINGS[book.rating]}">
{STARS}
                </p>

            <h3><a href="{href}" title="{title}">{text(cut(book.title))}</a></h3>

            <div class="product_price">

        <p class="price_color">{book.price}</p>

<p class="instock availability">
    <i class="icon-ok"></i>

        In stock

</p>

    <form>
        <button type="submit" class="btn btn-primary btn-block" data-loading-text="Adding...">Add to basket</button>
    </form>

            </div>

    </article>"""


def cut(title: str) -> str:
    """The first four words and " ...", or the whole of a shorter title."""
    words = title.split(" ")
    return title if len(words) <= 4 else " ".join(words[:4]) + " ..."
