"""`bookclub up`, called by `make run`: runs everything on the embedded default, built once, until Ctrl-C or SIGTERM.

Postgres -> sandbox shop, MLflow, Dagster, API -> first build -> addresses and one sample response -> stay
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from bookclub_platform.core.database import database_urls
from bookclub_platform.core.settings import Settings
from bookclub_platform.local import home as homes
from bookclub_platform.local import postgres
from bookclub_platform.local.database import open_databases
from bookclub_platform.local.home import SANDBOX
from bookclub_platform.local.ports import check_port, wanted_ports
from bookclub_platform.local.processes import Child, ChildEnded, Children

Say = Callable[[str], None]


class _Asked(BaseException):
    """Ctrl-C or SIGTERM; not an Exception, so that no handler on the way mistakes it for an error."""


def up(settings: Settings, with_sandbox: bool, say: Say) -> None:
    """Start everything, run the first build if there was none, and stay until a signal ends it.

    Raises:
        BookclubError: says what could not start, and what to do about it.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ask_to_end)
    try:
        with _Platform(settings, with_sandbox, say).running() as children:
            while True:
                children.check()
                if settings.database_url is None:
                    postgres.check(settings.home)
                time.sleep(0.5)
    except _Asked:
        say("All ended.")


def _ask_to_end(number: int, frame: FrameType | None) -> None:
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the shutdown
    raise _Asked


@dataclass
class _Platform:
    settings: Settings
    with_sandbox: bool
    say: Say
    environment: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @contextmanager
    def running(self) -> Iterator[Children]:
        """Everything running and built; leaving the block stops what was started, Postgres last."""
        home = self.settings.home
        with ExitStack() as stack:
            stack.enter_context(homes.held_by_us(home))
            children = Children(home / "children.json", home / "logs")
            for name in children.end_left_behind():
                self.say(f"Ended {name}, which a killed start had left behind.")
            self._check_ports()
            homes.check_disk(home)
            if self.settings.database_url is None:
                note = homes.settle(home, SANDBOX if self.with_sandbox else self.settings.shop_url)
                self.say(note or f"Home is {home}")
            stack.callback(_wait_until_ended, home)
            self._open_postgres(stack)
            stack.callback(children.end_all)
            self._start(children)
            yield children

    def _check_ports(self) -> None:
        for setting, (host, port) in wanted_ports(self.settings, self.with_sandbox).items():
            check_port(host, port, setting)

    def _open_postgres(self, stack: ExitStack) -> None:
        url = self.settings.database_url
        if url is None:
            url = stack.enter_context(postgres.leased(self.settings.home))
        else:
            open_databases(self.settings)
        self.environment["BOOKCLUB_DATABASE_URL"] = url
        self._say_up("Postgres")

    def _start(self, children: Children) -> None:
        shop = [self._start_sandbox(children)] if self.with_sandbox else []
        mlflow = [self._start_mlflow(children)] if self.settings.mlflow_tracking_uri is None else []
        others = [self._start_api(children), self._start_dagster(children)]
        for child in [*shop, *mlflow]:
            self._wait(children, child)
        if not homes.is_built(self.settings.home):
            # In parallel with the start of Dagster and the API: the build needs neither.
            status = children.run([sys.executable, "-m", "bookclub_platform.cli", "build"], **self.environment)
            if not homes.is_built(self.settings.home):
                raise ChildEnded(f"The first build ended with status {status}: see above for the cause.")
        for child in others:
            self._wait(children, child)
        self._show(children)

    def _start_sandbox(self, children: Children) -> Child:
        address = f"http://127.0.0.1:{self.settings.sandbox_port}"
        self.environment["BOOKCLUB_SHOP_URL"] = address
        sizes = ["--books", str(self.settings.sandbox_books), "--seed", str(self.settings.sandbox_seed)]
        command = [sys.executable, "-m", "bookclub_platform.sandbox", *sizes, "--port", str(self.settings.sandbox_port)]
        return children.start("sandbox", command, f"{address}/")

    def _start_mlflow(self, children: Children) -> Child:
        address = f"http://127.0.0.1:{self.settings.mlflow_port}"
        self.environment["MLFLOW_TRACKING_URI"] = address
        command = [
            *[
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--host",
                "127.0.0.1",
                "--port",
                str(self.settings.mlflow_port),
            ],
            *[
                "--default-artifact-root",
                homes.artifact_root(self.settings.home),
                "--no-serve-artifacts",
                "--workers",
                "1",
            ],
        ]
        environment = {
            # Not an argument, where every user of the machine could read the password.
            "MLFLOW_BACKEND_STORE_URI": database_urls(self.environment["BOOKCLUB_DATABASE_URL"]).mlflow,
            # Its job runner takes another 0.7 GB, for evaluations that we do elsewhere.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        # In its own folder: MLflow runs uvicorn as a command, which imports modules from the working folder regardless
        # of Python's settings.
        folder = self.settings.home / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        return children.start("mlflow", command, f"{address}/health", str(folder), **environment)

    def _start_api(self, children: Children) -> Child:
        address = f"{self.settings.api_url}/health"
        return children.start("api", [sys.executable, "-m", "serving"], address, **self.environment)

    def _start_dagster(self, children: Children) -> Child:
        instance = homes.dagster_home(self.settings.home)
        command = [
            *[sys.executable, "-m", "dagster", "dev", "--workspace", str(homes.project_file("workspace.yaml"))],
            *["--host", "127.0.0.1", "--port", str(self.settings.dagster_port)],
        ]
        address = f"http://127.0.0.1:{self.settings.dagster_port}/server_info"
        environment = self.environment | {"DAGSTER_HOME": str(instance)}
        if path := os.environ.get("PYTHONPATH"):
            # Its code server drops the first folder as the one that it was started in, but PYTHONSAFEPATH has already
            # removed that.
            environment["PYTHONPATH"] = os.pathsep.join([str(instance), path])
        return children.start("dagster", command, address, **environment)

    def _wait(self, children: Children, child: Child) -> None:
        children.wait_until_ready(child)
        self._say_up(child.name)

    def _say_up(self, name: str) -> None:
        self.say(f"{name:<10} up after {time.monotonic() - self.started:.1f} s")

    def _show(self, children: Children) -> None:
        """Print the addresses, and one request to the API with its real response, if it answers without a login."""
        example = None if self.settings.require_login else self._example()
        ready_s = time.monotonic() - self.started
        mlflow = self.environment.get("MLFLOW_TRACKING_URI", self.settings.mlflow_tracking_uri)
        self.say(f"\nDagster    http://127.0.0.1:{self.settings.dagster_port}")
        self.say(f"MLflow     {mlflow}")
        self.say(f"Catalogue  {self.settings.api_url}/catalogue")
        self.say(f"API        {self.settings.api_url}/docs")
        self.say(f"Shop       {self.environment.get('BOOKCLUB_SHOP_URL', self.settings.shop_url)}")
        if example is not None:
            title, question, answer = example
            self.say(f"\nWhat is like \"{title}\"?\n\n$ curl '{question}'")
            self.say(json.dumps(answer, ensure_ascii=False, indent=2))
        self.say(
            f"\nReady after {ready_s:.1f} s; {children.memory() / 2**30:.2f} GB of memory. "
            f"Logs are in {children.logs}. Ctrl-C ends all of it."
        )

    def _example(self) -> tuple[str, str, dict[str, Any]] | None:
        """The title of a book, a request for books like it, and the response; None while there are none."""
        try:
            book = _ask(f"{self.settings.api_url}/books?limit=1")["items"][0]
            question = f"{self.settings.api_url}/books/{book['id']}/recommendations?limit=1"
            return book["title"], question, _ask(question, timeout_s=30.0)
        except (OSError, LookupError) as error:
            self.say(
                f"\nThe API recommends nothing yet ({type(error).__name__}: {error}): see {self.settings.api_url}/ready"
            )
            return None


def _wait_until_ended(home: Path, timeout_s: float = 5.0) -> None:
    """Wait for Postgres, which stops by itself once our lease is gone, unless another lease keeps it running."""
    deadline = time.monotonic() + timeout_s
    while postgres.is_running(home) and time.monotonic() < deadline:
        time.sleep(0.05)


def _ask(url: str, timeout_s: float = 10.0) -> dict[str, Any]:
    """The JSON from `url`, retried until it returns 200 or the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=timeout_s) as answer:
                return dict(json.load(answer))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
