"""Template and values -> an HTML page whose headers allow it to load only our own style and covers."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse

from bookclub_platform.core.accounts import MAX_NAME, MIN_NAME, USERNAME_RULE
from bookclub_platform.core.passwords import MAX_LENGTH, MIN_LENGTH
from serving.http.problems import Problem
from serving.web.assets import asset

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(str(files("serving.web").joinpath("templates"))),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_SIGNS = {"GBP": "£", "EUR": "€", "USD": "$"}


def money(amount: float, currency: str) -> str:
    """£51.77; 51.77 CHF if the currency has no sign that everybody reads the same way."""
    sign = _SIGNS.get(currency)
    return f"{sign}{amount:,.2f}" if sign else f"{amount:,.2f} {currency}"


def stars(rating: int) -> str:
    return "★" * rating + "☆" * (5 - rating)


def web_address(text: str) -> bool:
    """Whether `text` may be the target of a link: a shop could write `javascript:`, too."""
    return text.startswith(("http://", "https://"))


_templates.tests |= {"web_address": web_address}
_templates.filters |= {"stars": stars}
_templates.globals |= {"money": money, "asset": asset, "MIN_LENGTH": MIN_LENGTH, "MAX_LENGTH": MAX_LENGTH}
_templates.globals |= {"MIN_NAME": MIN_NAME, "MAX_NAME": MAX_NAME, "USERNAME_RULE": USERNAME_RULE}


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """The template with this name, rendered."""
    html = _templates.get_template(template).render(values)
    # Each page has a form (to log out). With `no-referrer`, browsers would hide its origin, which forms.py checks.
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Referrer-Policy": "same-origin"}
    return HTMLResponse(html, status, headers)


def page_for(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Like `page`, with what every page needs: whether the reader is logged in, must log in, and may register."""
    accounts = request.state.accounts
    known = {
        "is_signed_in": request.state.caller.claims is not None,
        "is_login_required": accounts.is_login_required,
        "is_registration_open": accounts.is_registration_open,
    }
    return page(template, status, **known, **values)


def quota_page(request: Request, problem: Problem) -> HTMLResponse:
    """The page for a reader who exceeded a quota."""
    headers = problem.headers or {}
    text = f"Please try again in {headers['Retry-After']} seconds."
    answer = page_for(request, "fault.html", problem.status, title="Too many requests", text=text)
    answer.headers.update({"Cache-Control": "no-store"} | headers)
    return answer
