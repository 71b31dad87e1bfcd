"""Settings -> the ports that the platform needs, and whether each is free."""

from __future__ import annotations

import socket

from bookclub_platform.core.errors import PortTaken
from bookclub_platform.core.settings import Settings


def wanted_ports(settings: Settings, with_sandbox: bool) -> dict[str, tuple[str, int]]:
    """Setting -> (host, port) of each server that `bookclub up` starts itself."""
    wanted = {
        "BOOKCLUB_API_PORT": (settings.api_host, settings.api_port),
        "BOOKCLUB_DAGSTER_PORT": ("127.0.0.1", settings.dagster_port),
    }
    if settings.mlflow_tracking_uri is None:
        wanted["BOOKCLUB_MLFLOW_PORT"] = ("127.0.0.1", settings.mlflow_port)
    if with_sandbox:
        wanted["BOOKCLUB_SANDBOX_PORT"] = ("127.0.0.1", settings.sandbox_port)
    return wanted


def check_port(host: str, port: int, setting: str) -> None:
    """Raise PortTaken if something already listens there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(host, port, setting) from error
