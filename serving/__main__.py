"""Environment and `.env` -> the API: `BOOKCLUB_DATABASE_URL=... MLFLOW_TRACKING_URI=... python -m serving`."""

from __future__ import annotations

import sys

from bookclub_platform.core.errors import BookclubError, ConfigurationError
from bookclub_platform.core.settings import Settings, load_settings
from serving.run import run


def main() -> None:
    """Serve until a signal stops it; exit with status 1 if it cannot start."""
    try:
        settings = load_settings()
        run(settings, *_addresses(settings))
    except BookclubError as error:
        sys.exit(f"serving: {error}")


def _addresses(settings: Settings) -> tuple[str, str]:
    needed = {"BOOKCLUB_DATABASE_URL": settings.database_url, "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri}
    if missing := [name for name, value in needed.items() if not value]:
        raise ConfigurationError(
            f"{' and '.join(missing)} must be set: the API on its own brings neither a database nor a registry. "
            "`bookclub up` and `bookclub serve` bring both."
        )
    return str(settings.database_url), str(settings.mlflow_tracking_uri)


if __name__ == "__main__":
    main()
