"""A function that makes the app in each process, a socket -> several processes that respond on it.

    serve(partial(create_app, settings, ...), listener, workers=2, options=OPTIONS)     options: of uvicorn (run.py)

uvicorn's supervisor restarts a worker that ends or hangs, stops all workers on SIGINT and SIGTERM, and replaces each
worker on SIGHUP. Workers share state through files: quotas, token keys, models (mapped, so that there is one copy in
memory), figures for /metrics. Arguments are passed through a pipe, where nobody can read the passwords. On Linux,
workers are forked from a process that has imported everything and does nothing else; docs/decisions/0015 says what that
saves.
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

# A worker answers the supervisor's health check from a thread, which may start late on a busy machine.
_HUNG_AFTER_S = 60


def serve(make_app: Callable[[], FastAPI], listener: socket.socket, workers: int, options: dict[str, Any]) -> None:
    """Serve on `listener` until SIGINT or SIGTERM; `make_app` and `options` (of uvicorn) must be picklable.

    Exits with uvicorn's status if a worker cannot start."""
    config = uvicorn.Config(
        partial(_in_worker, make_app),
        factory=True,
        workers=workers,
        timeout_worker_healthcheck=_HUNG_AFTER_S,
        **options,
    )
    if sys.platform == "linux":  # elsewhere system libraries may have threads, which a fork does not copy
        forking = multiprocessing.get_context("forkserver")
        forking.set_forkserver_preload(["serving.preloaded"])
        _subprocess.spawn = forking  # type: ignore[assignment]  # uvicorn has no option for it
    supervisor = Multiprocess(config, sockets=[listener])
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        sys.exit(STARTUP_FAILURE)


def _in_worker(make_app: Callable[[], FastAPI]) -> FastAPI:
    logs.configure()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    return make_app()


def _end_with_parent() -> None:
    """Stop with a supervisor that is killed: it cannot signal its workers, and they would hold the port for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
