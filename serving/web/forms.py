"""Forms of the web catalogue: that they come from our own pages, where they lead to, and the cookie that they give.

The cookie is HttpOnly, SameSite=Lax, for these pages alone, and Secure where the page came by https. A form that
another site sends is refused by what browsers say of where it comes from: nobody is logged in or out by somebody else.
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
    """The page with the form; what was typed into it is for nobody's cache."""
    answer = page_for(request, template, status, next=ours(following), **values)
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Referrer-Policy"] = "same-origin"  # with none at all, browsers hide where the form comes from
    return answer


def lead_to(address: str) -> Response:
    """The answer to a form that was filled in well."""
    return RedirectResponse(ours(address), 303, {"Cache-Control": "no-store"})


def ours(address: str) -> str:
    """`address` if it is one of the catalogue's: a link to a form must not lead to somebody else's page."""
    return address if _PAGE.fullmatch(address) else PAGES


def sign_in(request: Request, answer: Response, cookie: str) -> None:
    """Let the browser keep `cookie`."""
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
    """Raises:
    Problem: the form comes from another site.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    # Browsers send the second alone where there is no https; what is no browser sends neither, and has no cookie.
    host = request.headers.get("host")  # HTTP/1.0 has none
    is_ours = site == "same-origin" if site else origin is None or (host and _host(origin) == _host(host))
    if not is_ours:
        raise Problem("other-site")


def _host(origin: str) -> str:
    """Without the port, which a gateway may leave out."""
    return re.sub(":[0-9]+$", "", origin.rpartition("://")[2])
