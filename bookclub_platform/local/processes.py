"""Commands -> child processes that are started, awaited and stopped together, whatever happens.

Each child leads its own session, so that Ctrl-C reaches only us, and we stop the children in our order, with all their
descendants. A file records what is running: after a kill -9 of this process, the next start stops what was left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bookclub_platform.core.errors import BookclubError

PATIENCE_S = 5.0


class ChildEnded(BookclubError):
    """A child ended by itself; the text contains the end of its log."""


@dataclass
class Child:
    """A running child; `ready_url` returns 200 once it is up."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    ready_url: str | None

    def tail(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass
class Children:
    """The children of one `bookclub up`.

    Attributes:
        record: the file that lists the running children; `logs`: the folder for their output.
    """

    record: Path
    logs: Path
    running: list[Child] = field(default_factory=list)

    def start(
        self,
        name: str,
        command: Sequence[str],
        ready_url: str | None = None,
        folder: str | None = None,
        **environment: str,
    ) -> Child:
        """Start `command` in `folder`, or in the working folder, with `environment` added to ours; its output goes to
        `<logs>/<name>.log`."""
        self.logs.mkdir(parents=True, exist_ok=True)
        path = self.logs / f"{name}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=folder,
                env=os.environ | environment,
            )
        child = Child(name, process, path, ready_url)
        self.running.append(child)
        self._write_record()
        return child

    def run(self, command: Sequence[str], **environment: str) -> int:
        """Run `command` to its end on our own terminal, and return its status."""
        process = subprocess.Popen(command, start_new_session=True, env=os.environ | environment)
        child = Child("build", process, Path(os.devnull), None)
        self.running.append(child)
        self._write_record()
        status = process.wait()
        self.running.remove(child)
        return status

    def wait_until_ready(self, child: Child, timeout_s: float = 90.0) -> None:
        """Return once the child responds.

        Raises:
            ChildEnded: it ended instead, or did not respond in time.
        """
        deadline = time.monotonic() + timeout_s
        while child.ready_url is not None and not _answers(child.ready_url):
            self.check()
            if time.monotonic() > deadline:
                raise ChildEnded(
                    f"{child.name} did not answer at {child.ready_url}. The end of {child.log}:\n{child.tail()}"
                )
            time.sleep(0.1)

    def check(self) -> None:
        """Raise ChildEnded if a child has ended."""
        for child in self.running:
            status = child.process.poll()
            if status is not None:
                raise ChildEnded(f"{child.name} ended with status {status}. The end of {child.log}:\n{child.tail()}")

    def end_all(self) -> None:
        """Stop every child and its descendants, the youngest first; returns within about PATIENCE_S."""
        _end([child.process.pid for child in reversed(self.running)], reap=self._reap)
        self.running.clear()
        self.record.unlink(missing_ok=True)

    def end_left_behind(self) -> list[str]:
        """Stop what a killed predecessor left running; return the names."""
        try:
            noted = json.loads(self.record.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return []
        alive = [row for row in noted if _is_same_process(row["pid"], row["started"])]
        _end([row["pid"] for row in alive])
        self.record.unlink()
        return [row["name"] for row in alive]

    def memory(self) -> int:
        """Bytes of memory of the children and their descendants: private memory plus their share of shared memory, if
        the system reports it (Linux), else the resident size."""
        return sum(_memory(process) for child in self.running for process in _family(child.process.pid))

    def _reap(self) -> None:
        for child in self.running:
            child.process.poll()

    def _write_record(self) -> None:
        rows = [
            {"name": child.name, "pid": child.process.pid, "started": psutil.Process(child.process.pid).create_time()}
            for child in self.running
            if child.process.poll() is None
        ]
        self.record.write_text(json.dumps(rows))


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _is_same_process(pid: int, started: float) -> bool:
    """Whether `pid` is still the recorded process, not a later one with the same number."""
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1.0
    except psutil.NoSuchProcess:
        return False


def _family(pid: int) -> list[psutil.Process]:
    try:
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _memory(process: psutil.Process) -> int:
    try:
        return int(getattr(process.memory_full_info(), "pss", 0) or process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _end(pids: Sequence[int], reap: Callable[[], None] = lambda: None) -> None:
    """Send SIGTERM to each session, then SIGKILL to what is still there after PATIENCE_S."""
    members = {process for pid in pids for process in _family(pid)}
    for pid in pids:
        _signal_group(pid, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        reap()
        if not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in members):
            return
        time.sleep(0.05)
    for pid in pids:
        _signal_group(pid, signal.SIGKILL)
    for process in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    reap()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        os.killpg(pid, number)
