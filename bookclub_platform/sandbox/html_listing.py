"""Pods, links and numbers -> the body of a page that lists books: sidebar, count, grid, pager."""

from __future__ import annotations

from collections.abc import Iterable

from .html_frame import WARNING, text


def listing(heading: str, path: str, side: str, counted: str, pods: Iterable[str], turn: str) -> str:
    """The body of a page that lists books."""
    items = "\n".join(f'<li class="col-xs-6 col-sm-4 col-md-3 col-lg-3">\n{pod}\n</li>\n' for pod in pods)
    return f"""<div class="container-fluid page">
    <div class="page_inner">

{path}

        <div class="row">

            <aside class="sidebar col-sm-4 col-md-3">

                <div id="promotions_left">

                </div>

        {side}

            </aside>

            <div class="col-sm-8 col-md-9">

                <div class="page-header action">
                    <h1>{text(heading)}</h1>
                </div>

<div id="messages">

</div>

                <div id="promotions">

                </div>

    <form method="get" class="form-horizontal">

        <div style="display:none">
        </div>

                    {counted}

    </form>

        <section>
            {WARNING}

            <div>
                <ol class="row">
{items}
                </ol>
{turn}
            </div>
        </section>

            </div>

        </div>
    </div>
</div>"""


def sidebar(all_books: str, entries: Iterable[tuple[str, str, bool]]) -> str:
    """The list of categories: (href, name, is it the current one)."""
    listed = "\n".join(
        f'                    <li>\n                        <a href="{href}">\n                            \n'
        f"                                {_marked(name, is_current)}\n                            \n"
        "                        </a>\n\n                    </li>\n"
        for href, name, is_current in entries
    )
    return f"""<div class="side_categories">
            <ul class="nav nav-list">

                    <li>
                        <a href="{all_books}">

                                Books

                        </a>

                        <ul>
{listed}
                        </ul></li>

            </ul>
        </div>"""


def _marked(name: str, is_current: bool) -> str:
    return f"<strong>{text(name)}</strong>" if is_current else text(name)


def count(total: int, first: int, last: int) -> str:
    """`1000 results - showing 1 to 20.`, or the total alone where one page holds all."""
    if last - first + 1 == total:
        return f"<strong>{total}</strong> result{'s' if total != 1 else ''}."
    return f"<strong>{total}</strong> results - showing <strong>{first}</strong> to <strong>{last}</strong>."


def pager(at: int, pages: int, previous: str, following: str) -> str:
    """Empty for a single page; `previous` and `following` are links, "" where there is none."""
    if pages == 1:
        return ""
    before = f'<li class="previous"><a href="{previous}">previous</a></li>' if previous else ""
    after = f'<li class="next"><a href="{following}">next</a></li>' if following else ""
    return f"""
    <div>
        <ul class="pager">
            {before}
            <li class="current">

                Page {at} of {pages}

            </li>
            {after}
        </ul>
    </div>
"""
