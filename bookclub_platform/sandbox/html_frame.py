"""Title and body -> a whole HTML document, and what every kind of page has: the path above it, the 404 page.

The element structure (tags, classes, nesting, padding) is that of the real shop; what is said is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

SHOP = "Bookclub Sandbox"
MADE = "24th Jun 2016 09:29"
WARNING = (
    '<div class="alert alert-warning" role="alert"><strong>Please note!</strong> Every book in this shop is invented, '
    "and its price and rating are drawn at random: they mean nothing.</div>"
)
_SCRIPTS = (
    "jquery/jquery-1.9.1.min.js",
    "",
    "bootstrap3/bootstrap.min.js",
    "oscar/ui.js",
    "bootstrap-datetimepicker/bootstrap-datetimepicker.js",
    "bootstrap-datetimepicker/locales/bootstrap-datetimepicker.all.js",
    "",
)
NOT_FOUND = (
    "<html>\n<head><title>404 Not Found</title></head>\n<body>\n<center><h1>404 Not Found</h1></center>\n"
    f"<hr><center>{SHOP}</center>\n</body>\n</html>\n"
)


def text(value: str) -> str:
    return escape(value, quote=False)


def page(title: str, root: str, body: str, description: str = "") -> str:
    """A whole document; `root` leads from the page to the shop's first folder ("", "../", ...)."""
    assets = f"{root}static/oscar/"
    styles = "\n".join(
        f'        <link rel="stylesheet" type="text/css" href="{assets}{name}" />'
        for name in (
            "css/styles.css",
            "js/bootstrap-datetimepicker/bootstrap-datetimepicker.css",
            "css/datetimepicker.css",
        )
    )
    scripts = "\n".join(
        f'        <script src="{assets}js/{name}"></script>' if name else "        <script>void 0;</script>"
        for name in _SCRIPTS
    )
    return f"""

<!DOCTYPE html>
<!--[if lt IE 9]> <html lang="en-us" class="no-js lt-ie9"> <![endif]-->
<!--[if gt IE 8]><!--> <html lang="en-us" class="no-js"> <!--<![endif]-->
    <head>
        <title>
    {text(title)} | {SHOP}
</title>

        <meta http-equiv="content-type" content="text/html; charset=UTF-8" />
        <meta name="created" content="{MADE}" />
        <meta name="description" content="{escape(description)}" />
        <meta name="viewport" content="width=device-width" />
        <meta name="robots" content="NOARCHIVE,NOCACHE" />

        <link rel="shortcut icon" href="{assets}favicon.ico" />
{styles}
    </head>

    <body id="default" class="default">

    <header class="header container-fluid">
        <div class="page_inner">
            <div class="row">
                <div class="col-sm-8 h1"><a href="{root}index.html">{SHOP}</a><small> Crawlers welcome!</small>
</div>
            </div>
        </div>
    </header>

{body}

<footer class="footer container-fluid">
</footer>

{scripts}
    </body>
</html>
"""


def crumbs(links: Iterable[tuple[str, str]], here: str) -> str:
    """The path above a page: (href, label) of each page above it, then its own name."""
    steps = "\n".join(f'    <li>\n        <a href="{href}">{text(label)}</a>\n    </li>\n' for href, label in links)
    return f'<ul class="breadcrumb">\n{steps}\n    <li class="active">{text(here)}</li>\n</ul>'
