"""A folder -> a Postgres server that lives exactly as long as somebody uses it.

    with leased(home) as url: ...            # this process uses the server until the block ends
    lease(home)                              # ... until the process ends, however it ends

Everyone who needs the server holds a shared lock on one file. The first starts a supervisor, a process of its own, that
runs Postgres, restarts it after a crash on the same port, and ends it once it can take that lock for itself, that is,
once nobody holds it. The kernel drops a dead process's lock, so kill -9 of a user leaves nothing running.

The server takes TCP on loopback only, with a password that lies in `<home>/postgres/password`.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO

import psutil
import sqlalchemy as sa

from bookclub_platform.core.database import database_urls, ensure_databases, migrate, wait_until_up
from bookclub_platform.core.errors import ConfigurationError, DatabaseUnavailable
from bookclub_platform.local import postgres_binaries as binaries

ROLE = "bookclub"
START_TIMEOUT_S = 60.0
POLL_S = 0.1
MOST_STARTS = 3


def lease(home: Path) -> str:
    """The address of the running server of `home`, kept running until this process ends.

    Raises:
        DatabaseUnavailable: it did not start; the text names the log.
    """
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(leased(home))


@contextlib.contextmanager
def leased(home: Path) -> Iterator[str]:
    """The address of the running server of `home`, its databases created and migrated; kept running in the block."""
    folder = home / "postgres"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "leases.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_SH)  # waits while a supervisor is shutting down
        url = _running(folder)
        urls = database_urls(url)
        ensure_databases(urls)
        migrate(urls.books)
        yield url


def is_running(home: Path) -> bool:
    """Whether a supervisor is running for `home`."""
    return is_held(home / "postgres" / "supervisor.lock")


def check(home: Path) -> None:
    """Raise DatabaseUnavailable if the server of `home` has ended for good, as after MOST_STARTS crashes in a row."""
    if not is_running(home):
        log = home / "postgres" / "postgres.log"
        raise DatabaseUnavailable(
            f"The embedded Postgres has ended, and nobody starts it again. The end of {log}:\n{_tail(log)}"
        )


def address(home: Path) -> str:
    """The address of the server of `home`, which must have been started once; starts nothing."""
    return _url(home / "postgres")


def _running(folder: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    supervisor: subprocess.Popen[bytes] | None = None
    while time.monotonic() < deadline:
        if is_held(folder / "supervisor.lock"):
            with contextlib.suppress(FileNotFoundError, DatabaseUnavailable):  # not yet up: retry until the deadline
                url = _url(folder)
                wait_until_up(url, timeout_s=1.0)
                return url
        elif supervisor is None or supervisor.poll() == 0:
            # Status 0: it found the lock held, perhaps only for the moment in which another process checked it.
            supervisor = _spawn_supervisor(folder)
        elif supervisor.poll() is not None:
            break
        time.sleep(0.03)
    log = folder / "postgres.log"
    raise DatabaseUnavailable(f"The embedded Postgres did not start. The end of {log}:\n{_tail(log)}")


def _spawn_supervisor(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "postgres.log").open("ab") as log:
        # Its own session: Ctrl-C on the terminal must first reach the platform, which still needs the server.
        return subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )


def _url(folder: Path) -> str:
    """The server's address; raises FileNotFoundError before its first start."""
    port = json.loads((folder / "server.json").read_text())["port"]
    password = (folder / "password").read_text().strip()
    return sa.URL.create("postgresql", ROLE, password, "127.0.0.1", port, "bookclub").render_as_string(
        hide_password=False
    )


def supervise(folder: Path) -> None:
    """Run the server of `folder` until nobody holds a lease on it. Return at once if another supervisor runs it."""
    with (folder / "supervisor.lock").open("w") as mine:
        try:
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        wished_port = _last_port(folder)
        # Otherwise a process that waits for us would get the address of the orphan, which we are about to stop.
        (folder / "server.json").unlink(missing_ok=True)
        _end_orphan(folder)
        _initialise(folder)
        port = _free_port(wished_port)
        asked_to_end: list[int] = []

        def ask(number: int, frame: FrameType | None) -> None:
            asked_to_end.append(number)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, ask)
        server, starts = _start(folder, port), [time.monotonic()]
        with (folder / "leases.lock").open("w") as leases:
            while not asked_to_end and not _take(leases):
                if server.poll() is not None:
                    if len(starts) >= MOST_STARTS and starts[-MOST_STARTS] > time.monotonic() - 10:
                        sys.exit(f"Postgres ended {MOST_STARTS} times in 10 s: giving up")
                    print(f"Postgres ended with status {server.returncode}: starting it again", flush=True)
                    server = _start(folder, port)
                    starts.append(time.monotonic())
                time.sleep(POLL_S)
            server.send_signal(signal.SIGINT)  # "fast shutdown": ends sessions, then flushes everything to disk
            server.wait()


def _take(leases: IO[str]) -> bool:
    try:
        fcntl.flock(leases, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        # Dagster does not pool: a single run opens 81 to 126 sessions, besides its daemon, MLflow and the API.
        "max_connections": "300",
        "shared_buffers": "128MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    server = subprocess.Popen(
        [*binaries.command("postgres", folder / "data"), "-D", str(folder / "data"), *options], cwd="/"
    )
    state = folder / "server.json.new"
    state.write_text(json.dumps({"port": port, "pid": server.pid}))
    state.replace(folder / "server.json")
    return server


def _initialise(folder: Path) -> None:
    """Run initdb once, in a temporary folder, so that a start that is killed half-way leaves no incomplete cluster."""
    data, fresh = folder / "data", folder / "data.new"
    if data.exists():
        return
    shutil.rmtree(fresh, ignore_errors=True)
    secret = secrets.token_urlsafe(24)
    for name in ("password", "password.initdb"):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(secret)
    fresh.mkdir(mode=0o700)
    binaries.give(fresh)
    binaries.give(folder / "password.initdb")  # initdb reads it as the server's user
    command = [
        *binaries.command("initdb", fresh),
        *["-D", str(fresh), "--username", ROLE, "--encoding", "UTF8", "--locale", "C"],
        *["--auth", "scram-sha-256", "--pwfile", str(folder / "password.initdb"), "--no-sync"],
    ]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True)
    (folder / "password.initdb").unlink()
    if done.returncode:
        raise ConfigurationError(f"initdb failed in {fresh}: {done.stderr.strip()}")
    fresh.rename(data)


def _end_orphan(folder: Path) -> None:
    """Stop a server whose supervisor was killed; its clients reconnect to the new one."""
    try:
        pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, IndexError, ProcessLookupError):
        return
    except PermissionError:
        pass  # another user's process: its command line says which
    if str(folder / "data") not in _arguments(pid):
        # After a crash, another program got this process id, and Postgres would refuse to start beside it.
        (folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        return
    print(f"Ending the Postgres {pid} that its supervisor left behind", flush=True)
    for number, patience_s in ((signal.SIGINT, 5.0), (signal.SIGQUIT, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)


def _arguments(pid: int) -> list[str]:
    """The arguments of a process; none if it has ended, or is one whose arguments we may not see: not our server."""
    try:
        return psutil.Process(pid).cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


def _last_port(folder: Path) -> int:
    try:
        return int(json.loads((folder / "server.json").read_text())["port"])
    except FileNotFoundError:
        return 0


def _free_port(wished: int) -> int:
    """`wished` if it is free, so that addresses that people have noted stay valid; else any free port."""
    for port in (wished, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigurationError("No free TCP port on 127.0.0.1")


def is_held(path: Path) -> bool:
    """Whether some process holds the lock file `path`."""
    try:
        with path.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    supervise(parser.parse_args().folder)
