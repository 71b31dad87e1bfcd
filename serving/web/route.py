"""A route for readers: errors are shown as pages, and readers who must log in are redirected to the login."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import RedirectResponse

from bookclub_platform.core.errors import DatabaseUnavailable, NoChampion
from serving.access.paths import WEB_LOGIN
from serving.http.problems import Problem
from serving.web.pages import page_for, quota_page


class WebRoute(APIRoute):
    """Errors become pages; and pages are private to their reader, not for a shared cache."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_for_readers(request: Request) -> Response:
            try:
                answer = await handle(request)
            except (RequestValidationError, NoChampion, Problem, DatabaseUnavailable) as error:
                answer = await self.told(request, error)
            answer.headers.setdefault("Cache-Control", "private, no-cache")
            return answer

        return handle_for_readers

    async def told(self, request: Request, error: Exception) -> Response:
        """The page for an error; an error without a page is raised again."""
        if isinstance(error, RequestValidationError):
            return page_for(request, "fault.html", 404, title="No such page", text="This address does not exist.")
        if isinstance(error, DatabaseUnavailable):
            text = "The catalogue is not available at the moment. Please try again soon."
            answer = page_for(request, "fault.html", 503, title="Not available", text=text)
            answer.headers["Retry-After"] = "5"
            return answer
        if isinstance(error, NoChampion) or (isinstance(error, Problem) and error.kind == "no-search"):
            text = "Search is not available yet. You can browse all books."
            return page_for(request, "fault.html", 503, title="No search yet", text=text)
        if isinstance(error, Problem) and error.status == 401:
            query = request.scope["query_string"].decode("latin-1")
            return to_login(f"{request.scope['path']}?{query}".removesuffix("?"))
        if isinstance(error, Problem) and error.kind == "quota-exceeded":
            return quota_page(request, error)
        if isinstance(error, Problem):
            answer = page_for(request, "fault.html", error.status, title="That did not work", text=str(error))
            answer.headers.update(error.headers or {})
            return answer
        raise error


def to_login(following: str) -> Response:
    """A redirect to the login, and from there to `following`."""
    return RedirectResponse(f"{WEB_LOGIN}?{urlencode({'next': following})}", 303, {"Cache-Control": "no-store"})
