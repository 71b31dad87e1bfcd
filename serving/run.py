"""Settings and URLs -> the API on its port, in one process or several, until a signal stops it.

    run(load_settings(), "postgresql://user:password@host/bookclub", "http://127.0.0.1:5000")

`python -m serving` does the same with the URLs from the environment.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import socket
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from bookclub_platform.core.errors import PortTaken
from bookclub_platform.core.settings import Settings
from bookclub_platform.core.token_keys import KeyRing
from serving.http.protocol import HttpProtocol
from serving.process import logs, malloc, workers

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)

# How long a response may wait while another thread runs Python code, for a new model or new books: Python's default of
# 5 ms is the time of ten responses.
_SWITCH_S = 0.0005
OPTIONS: dict[str, Any] = {
    "http": HttpProtocol,
    "ws": "none",
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,  # by default uvicorn trusts the forwarding headers of anybody on loopback
    # Longer than a gateway keeps a connection (nginx: 60 s): if the server closed first, the gateway's next request
    # could already be on its way, and nobody would know whether a POST was executed.
    "timeout_keep_alive": 75,
    "timeout_graceful_shutdown": 5,  # how long a shutdown waits for responses in progress
}


def run(settings: Settings, database_url: str, tracking_uri: str) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        PortTaken: something else listens on BOOKCLUB_API_PORT.
    """
    logs.configure()
    KeyRing(settings.token_keys_file).current()  # report unusable keys now, not at the first login
    make_app = partial(_app, settings, database_url, tracking_uri)
    with _listening(settings.api_host, settings.api_port) as listener:
        log.info("Listening on http://%s:%d, described at /docs.", settings.api_host, settings.api_port)
        if settings.api_workers > 1:
            with tempfile.TemporaryDirectory(prefix="bookclub-figures-") as figures:
                workers.serve(partial(make_app, Path(figures)), listener, settings.api_workers, OPTIONS)
            return
        # After a clean shutdown uvicorn raises the signal again, which becomes a KeyboardInterrupt in Python.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(make_app(), **OPTIONS)).run(sockets=[listener])


def _app(settings: Settings, database_url: str, tracking_uri: str, figures: Path | None = None) -> FastAPI:
    from serving.app import create_app  # a second of imports, which the supervisor of several workers does not need

    malloc.limit()
    app = create_app(settings, database_url, tracking_uri, figures)
    sys.setswitchinterval(_SWITCH_S)
    # Everything imported and created so far lives until the process ends. A garbage collection that scans it takes a
    # tenth of a second, during which no request is answered.
    gc.collect()
    gc.freeze()
    return app


def _listening(host: str, port: int) -> socket.socket:
    """Opened here, because uvicorn would exit on a port in use without naming the setting."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(host, port, "BOOKCLUB_API_PORT") from error
        raise
