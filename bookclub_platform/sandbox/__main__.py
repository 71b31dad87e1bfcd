"""The sandbox shop from the command line: `python -m bookclub_platform.sandbox --books 1000 --seed 0 --port 8900`."""

from __future__ import annotations

import argparse
import sys

from bookclub_platform.core.errors import BookclubError

from .server import serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bookclub_platform.sandbox", description="A shop of made-up books.")
    parser.add_argument("--books", type=int, default=1000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8900, metavar="P", help="0 for a free one (default: 8900)")
    parser.add_argument("--javascript", action="store_true", help="pages that only a browser can render")
    options = parser.parse_args()
    if options.books < 1 or not 0 <= options.port <= 65535:
        parser.error("--books must be at least 1 and --port between 0 and 65535")
    try:
        serve(options.books, options.seed, options.host, options.port, is_script=options.javascript)
    except BookclubError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
