"""An installed environment -> the part of it that the API needs: `python tools/slim.py VENV`, as the Dockerfile does.

Off go tests and what only compilers read; symbols that only a debugger reads, which are half of some libraries; and
bytecode of what the API never imports. What it imports is compiled here, for whoever serves may not write there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

FOR_COMPILERS = {".a", ".c", ".h", ".pxd", ".pyi", ".pyx"}
# All that is served with, and what the server imports only once it runs.
IMPORT_ALL = """
import importlib, pkgutil
import bookclub_platform.core, bookclub_platform.models, serving
import bookclub_platform.cli, bookclub_platform.export, bookclub_platform.model_versions, serving.__main__
for package in (bookclub_platform.core, bookclub_platform.models, serving):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if "migrations" not in module.name:
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                if error.name.split(".")[0] in {"bookclub_platform", "serving"}:
                    raise
import uvicorn.lifespan.on, uvicorn.loops.auto, uvicorn.loops.uvloop, uvicorn.protocols.http.auto
import uvicorn.protocols.websockets.auto, sqlalchemy.dialects.postgresql.psycopg, anyio._backends._asyncio
"""


def main(venv: Path) -> None:
    """Make `venv` small."""
    (packages,) = venv.glob("lib/python3*/site-packages")
    before = size_mb(venv)
    for found in [*packages.rglob("tests"), *packages.rglob("__pycache__")]:
        shutil.rmtree(found, ignore_errors=True)
    for found in packages.rglob("*"):
        if found.suffix in FOR_COMPILERS:
            found.unlink()
    for library in libraries(packages):
        subprocess.run(["strip", "--strip-unneeded", library], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([venv / "bin" / "python", "-I", "-c", IMPORT_ALL], check=True, env=environment)
    print(f"{venv}: {before} MB before, {size_mb(venv)} MB now")


def libraries(packages: Path) -> list[Path]:
    """Those that strip leaves whole: not of a package whose libraries were bound to others beside them since."""
    bound = {re.sub("[.]libs$", "", folder.name) for folder in packages.glob("*.libs")}
    found = (path for path in packages.rglob("*.so") if not path.parent.name.endswith(".libs"))
    return [path for path in found if path.relative_to(packages).parts[0] not in bound]


def size_mb(folder: Path) -> int:
    """What it takes on the disk."""
    return sum(path.lstat().st_blocks for path in folder.rglob("*")) * 512 // 2**20


if __name__ == "__main__":
    main(Path(sys.argv[1]))
