"""What the machine has: versions, room, ports, and the list of sources."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Iterator

from packaging.requirements import Requirement

from bookclub_platform.core.errors import PortTaken
from bookclub_platform.core.settings import Settings
from bookclub_platform.local.doctor._finding import Finding
from bookclub_platform.local.home import NEEDED_BYTES, is_up
from bookclub_platform.local.ports import check_port, wanted_ports
from bookclub_platform.sources import faults, sources_file

_TOLD = ("dagster", "mlflow", "sqlalchemy", "fastapi")


def versions(settings: Settings) -> list[Finding]:
    text = f"Python {platform.python_version()} at {sys.executable}"
    wrong = list(_wrong_packages())
    if wrong:
        return [Finding("versions", False, f"{text}; {'; '.join(wrong)}", "Install what fits: `make install`.")]
    return [Finding("versions", True, ", ".join([text, *(f"{name} {_version(name)}" for name in _TOLD)]))]


def _wrong_packages() -> Iterator[str]:
    """What setup.py asks for, and is missing or of another version."""
    for line in importlib.metadata.requires("bookclub-platform") or []:
        needed = Requirement(line)
        if needed.marker is not None and not needed.marker.evaluate({"extra": "platform"}):
            continue
        found = _version(needed.name)
        if found is None:
            yield f"{needed.name} is missing"
        elif not needed.specifier.contains(found, prereleases=True):
            yield f"{needed.name} is {found}, and must be {needed.specifier}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def disk(settings: Settings) -> list[Finding]:
    folder = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**30:.1f} GB left for {settings.home}"
    return [Finding("disk", free >= NEEDED_BYTES, text, "Make room, or set BOOKCLUB_HOME to a folder on another disk.")]


def ports(settings: Settings) -> list[Finding]:
    wanted = wanted_ports(settings, with_sandbox="shop_url" not in settings.model_fields_set)
    numbers = ", ".join(f"{setting}={port}" for setting, (_, port) in wanted.items())
    if len({port for _, port in wanted.values()}) < len(wanted):
        return [Finding("ports", False, f"two servers want the same: {numbers}", "Set each to a port of its own.")]
    if is_up(settings.home):
        return [Finding("ports", True, f"in use by the platform: {numbers}")]
    taken = []
    for setting, (host, port) in wanted.items():
        try:
            check_port(host, port, setting)
        except PortTaken as error:
            taken.append(Finding("ports", False, *str(error).split(". ", 1)))
    return taken or [Finding("ports", True, f"free: {numbers}")]


def sources(settings: Settings) -> list[Finding]:
    wrong = faults(settings)
    if wrong:
        return [Finding("sources", False, "; ".join(wrong), "Mend the file; the other sources work.")]
    return [Finding("sources", True, str(sources_file(settings)))]
