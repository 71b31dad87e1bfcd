"""`python -m bookclub_platform.sources check` lists each fault in sources.yaml; `... schema` prints its schema."""

from __future__ import annotations

import json
import sys

from bookclub_platform.core.settings import load_settings
from bookclub_platform.sources import faults, schema, sources_file


def main(arguments: list[str]) -> int:
    if arguments == ["schema"]:
        sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
        return 0
    if arguments != ["check"]:
        sys.stderr.write("usage: python -m bookclub_platform.sources check|schema\n")
        return 2
    settings = load_settings()
    found = faults(settings)
    sys.stdout.write("\n".join(found or [f"{sources_file(settings)} is sound"]) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
