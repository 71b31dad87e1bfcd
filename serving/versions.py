"""Champion + snapshot -> two headers, so that every answer names its model and data, a single book's too."""

from __future__ import annotations

from fastapi import Response

from serving.catalogue import Snapshot
from serving.champion import Champion

VERSION_HEADERS = ("Bookclub-Data-Version", "Bookclub-Model")


def name_versions(response: Response, champion: Champion | None, snapshot: Snapshot) -> None:
    """Set `Bookclub-Data-Version`, and `Bookclub-Model` (`tfidf_model/3`) where there is a model."""
    response.headers["Bookclub-Data-Version"] = snapshot.data_version
    if champion is not None:
        response.headers["Bookclub-Model"] = f"{champion.version.name}/{champion.version.version}"
