"""An address, and what to ask there -> wrk -> requests per second, latencies, and what the server's CPU made of it.

wrk is written in C and takes a tenth of the CPU that the servers take; Debian and Homebrew have it under that name.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import psutil

# Which path is next is drawn anew for each request, by the same seed for each server.
_SCRIPT = """
math.randomseed(1)
local paths = {%s}
local body, pause_ms = %s, %d
request = function()
  local path = paths[math.random(#paths)]
  if body == nil then return wrk.format("GET", path) end
  local id = string.match(path, "%%d+")
  return wrk.format("POST", "/invocations", {["Content-Type"] = "application/json"}, (string.gsub(body, "ID", id)))
end
if pause_ms > 0 then delay = function() return math.random(0, 2 * pause_ms) end end
done = function(summary, latency)
  local errors = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format('JSON{"requests": %%d, "us": %%d, "errors": %%d, "p50_us": %%d, "p99_us": %%d}\\n',
    summary.requests, summary.duration, errors, latency:percentile(50), latency:percentile(99)))
end
"""


class Load(NamedTuple):
    """`per_cpu_s`: requests for each CPU second of the server, which other work on the machine sways less."""

    per_s: float
    per_cpu_s: float
    p50_ms: float
    p99_ms: float
    errors: int


def load(
    server: psutil.Process, address: str, paths: list[str], seconds: float, connections: int = 16, pause_ms: int = 0,
    body: str | None = None,
) -> Load:  # fmt: skip
    """Ask for random `paths` over `connections` for `seconds`, each waiting `pause_ms` on average between two; with a
    `body`, post that to /invocations, ID replaced by the number in the path."""
    listed = ", ".join(json.dumps(path) for path in paths)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % (listed, "nil" if body is None else f"[[{body}]]", pause_ms))
        script.flush()
        before = cpu_s(server)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", script.name, address]
        output = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(script.name).parent
        ).stdout
        spent = cpu_s(server) - before
    told = json.loads(next(line for line in output.splitlines() if line.startswith("JSON"))[4:])
    return Load(
        told["requests"] / told["us"] * 1e6,
        told["requests"] / spent,
        told["p50_us"] / 1000,
        told["p99_us"] / 1000,
        told["errors"],
    )


def cpu_s(server: psutil.Process) -> float:
    """Of the process and all that it has started."""
    return sum(sum(one.cpu_times()[:2]) for one in [server, *server.children(recursive=True)])
