"""What never changes while the server runs: the OpenAPI document, and what /docs and /redoc are made of."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import problem
from serving.answers import fixed
from serving.app import create_app

NOWHERE = "http://127.0.0.1:1"


def test_it_is_packed_once_named_by_an_etag_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[int] = []
    packing = gzip.compress

    def compress(content: bytes, mtime: float) -> bytes:
        packed.append(len(content))
        return packing(content, mtime=mtime)

    monkeypatch.setattr(fixed.gzip, "compress", compress)
    monkeypatch.setattr("starlette.middleware.gzip.GZipResponder.apply_compression", None)  # nobody else packs them
    app = create_app(given.settings(tmp_path, anonymous_per_minute=100), "postgresql://127.0.0.1:1/none", NOWHERE)
    with given.serving(app) as client:
        pages = client.get("/docs").text + client.get("/redoc").text
        addresses = set(re.findall(r"[\"'](/(?:static-offline-docs/[^\"']+|openapi.json))[\"']", pages))
        assert len(addresses) == 5
        for address in sorted(addresses):
            first, again = client.get(address), client.get(address)
            assert first.content == again.content and len(first.content) > 500
            is_packed = "png" not in address
            assert (again.headers.get("content-encoding") == "gzip") is is_packed
            assert int(again.headers["content-length"]) < len(first.content) or not is_packed
            plain = client.get(address, headers={"Accept-Encoding": "identity"})
            assert plain.content == first.content and "content-encoding" not in plain.headers
            assert {one.headers["etag"] for one in (first, again, plain)} == {first.headers["etag"]}
            assert first.headers["cache-control"].startswith("public, ")
            held = client.get(address, headers={"If-None-Match": first.headers["etag"]})
            assert held.status_code == 304 and not held.content and held.headers["etag"] == first.headers["etag"]
            assert held.headers["ratelimit-policy"].startswith('"anonymous";q=100')
            problem(client.post(address), 405)
            assert client.head(address).headers["content-length"] == first.headers["content-length"]
        assert len(packed) == 4, "once each, and the picture not at all"
        assert client.get("/openapi.json").json()["openapi"].startswith("3.1")
        for address in ("/static-offline-docs/", "/static-offline-docs//swagger-ui.css", "/static-offline-docs/no"):
            problem(client.get(address), 404)
