"""An app that can be made anew in each process, a socket -> several processes that answer on it.

    serve(partial(create_app, settings, ...), listener, workers=2, options=OPTIONS)     options: of uvicorn (run.py)

uvicorn's supervisor: it starts a worker again that ends or hangs, ends all on SIGINT and SIGTERM, and on SIGHUP puts a
fresh worker in the place of each. What workers share lies in files: quotas, keys of tokens, models (mapped, so that
there is one copy in memory), figures for /metrics. Arguments go through a pipe, where nobody reads the passwords.
On Linux a process that has imported all and does nothing else forks them; docs/decisions/0015 tells what that saves.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn import _subprocess
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from serving.process import logs

if TYPE_CHECKING:
    from fastapi import FastAPI

# A worker answers the supervisor from a thread; while it starts on a busy machine that thread is not there yet.
_HUNG_AFTER_S = 60


def serve(make_app: Callable[[], FastAPI], listener: socket.socket, workers: int, options: dict[str, Any]) -> None:
    """Answer on `listener` until SIGINT or SIGTERM; `make_app` and `options` (of uvicorn) must be picklable.

    Exits with uvicorn's status if a worker cannot start."""
    config = uvicorn.Config(
        partial(_in_worker, make_app),
        factory=True,
        workers=workers,
        timeout_worker_healthcheck=_HUNG_AFTER_S,
        **options,
    )
    if sys.platform == "linux":  # elsewhere libraries of the system may have threads, which a fork does not copy
        forking = multiprocessing.get_context("forkserver")
        forking.set_forkserver_preload(["serving.preloaded"])
        _subprocess.spawn = forking  # type: ignore[assignment]  # uvicorn lets nobody choose
    supervisor = Multiprocess(config, sockets=[listener])
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        sys.exit(STARTUP_FAILURE)


def _in_worker(make_app: Callable[[], FastAPI]) -> FastAPI:
    logs.configure()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    return make_app()


def _end_with_parent() -> None:
    """A supervisor that is killed tells nobody, and its workers would hold the port for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
