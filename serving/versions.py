"""Champion + snapshot -> two headers, so that every answer names its model and data, a single book's too."""

from __future__ import annotations

from fastapi import Response

from serving.catalogue import Snapshot
from serving.champion import Champion

VERSION_HEADERS = ("Bookclub-Data-Version", "Bookclub-Model")


def name_versions(response: Response, champion: Champion | None, snapshot: Snapshot, has_lists: bool = False) -> None:
    """Set `Bookclub-Data-Version`, and `Bookclub-Model` (`tfidf_model/3`) where there is a model.

    An answer that `has_lists` rests on two states for some seconds after a load, and is named after the earlier: who
    keeps answers by version must not keep this one for the later.
    """
    response.headers["Bookclub-Data-Version"] = snapshot.data_version
    if champion is not None:
        if has_lists:
            response.headers["Bookclub-Data-Version"] = champion.lineup.data_version or "0"
        response.headers["Bookclub-Model"] = f"{champion.version.name}/{champion.version.version}"
