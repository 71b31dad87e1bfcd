"""Forms of the web catalogue: the check that they come from our own pages, the redirect after them, and the cookie.

The cookie is HttpOnly, SameSite=Lax, only for these pages, and Secure if the page was sent over https. A form from
another site is refused, by the headers that say where it comes from, so that no other site can log anybody in or out.
"""

from __future__ import annotations

import re
from typing import Any

from fastapi import Request, Response
from starlette.responses import RedirectResponse

from serving.access.callers import COOKIE
from serving.access.paths import PAGES, WEB_ACCOUNT
from serving.access.tokens import WEB_LIFE_S
from serving.http.problems import Problem
from serving.web.pages import page_for

_PAGE = re.compile(f"(?:{PAGES}(/[0-9]+)?|{WEB_ACCOUNT})([?][!-~]*)?", re.ASCII)


def form(request: Request, template: str, status: int = 200, following: str = PAGES, **values: Any) -> Response:
    """The page with the form; it is not cached, because it contains what was typed into it."""
    answer = page_for(request, template, status, next=ours(following), **values)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def lead_to(address: str) -> Response:
    """The redirect after a form that was accepted."""
    return RedirectResponse(ours(address), 303, {"Cache-Control": "no-store"})


def ours(address: str) -> str:
    """`address` if it is a page of the catalogue, else its first page: a form must not lead to another site."""
    return address if _PAGE.fullmatch(address) else PAGES


def sign_in(request: Request, answer: Response, cookie: str) -> None:
    """Set `cookie` in the browser."""
    answer.set_cookie(
        COOKIE,
        cookie,
        max_age=WEB_LIFE_S,
        path=PAGES,
        secure=request.scope["scheme"] == "https",
        httponly=True,
        samesite="lax",
    )


def sign_out(answer: Response) -> None:
    answer.delete_cookie(COOKIE, path=PAGES)


def refuse_others(request: Request) -> None:
    """Accept only forms of our own pages.

    Raises:
        Problem: the form comes from another site.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    # Without https, browsers send only the second; clients that are not browsers send neither, and have no cookie.
    host = request.headers.get("host")  # HTTP/1.0 has none
    is_ours = site == "same-origin" if site else origin is None or (host and _host(origin) == _host(host))
    if not is_ours:
        raise Problem("other-site")


def _host(origin: str) -> str:
    """The host without the port, which a gateway may leave out."""
    return re.sub(":[0-9]+$", "", origin.rpartition("://")[2])
