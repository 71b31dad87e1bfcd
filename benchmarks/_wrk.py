"""An address, and paths to request there -> wrk -> requests per second, latencies, and requests per CPU second.

wrk is written in C and takes a tenth of the CPU that the servers take; its package in Debian and Homebrew is `wrk`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

Order = Literal["random", "zipf", "once"]

# The next path is drawn at random for each request, with the same seed for each server; or the paths come in order,
# until all were requested. In that case the script measures the time, because wrk reports how long it slept instead.
_SCRIPT = """
local ffi = require("ffi")
ffi.cdef("typedef struct { long s; int us; int padding; } bench_time; int gettimeofday(bench_time *, void *);")
local moment = ffi.new("bench_time")
local function now_us() ffi.C.gettimeofday(moment, nil); return tonumber(moment.s) * 1e6 + moment.us end
math.randomseed(1)
local order, body, pause_ms = "%s", %s, %d
local paths, sums, asked, began = {}, {}, 0, 0
for path in io.lines("%s") do
  paths[#paths + 1] = path
  sums[#paths] = (sums[#paths - 1] or 0) + 1 / #paths
end
took_us, last_us = 0, 0
local function place()
  if order == "random" then return math.random(#paths) end
  if order == "once" then return asked end
  local low, high, drawn = 1, #paths, math.random() * sums[#paths]
  while low < high do
    local middle = math.floor((low + high) / 2)
    if sums[middle] < drawn then low = middle + 1 else high = middle end
  end
  return low
end
request = function()
  if asked == 0 then began = now_us() end
  if order == "once" and asked == #paths then
    if took_us == 0 then took_us = now_us() - began; wrk.thread:stop() end
    return wrk.format("GET", paths[1])
  end
  asked = asked + 1
  local path = paths[place()]
  if body == nil then return wrk.format("GET", path) end
  local id = string.match(path, "%%d+")
  return wrk.format("POST", "/invocations", {["Content-Type"] = "application/json"}, (string.gsub(body, "ID", id)))
end
if pause_ms > 0 then delay = function() return math.random(0, 2 * pause_ms) end end
local client
setup = function(thread) client = thread end
done = function(summary, latency)
  local took = client:get("took_us")
  local us = took > 0 and took or summary.duration
  local errors = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format('JSON{"requests": %%d, "us": %%d, "errors": %%d, "p50_us": %%d, "p99_us": %%d}\\n',
    summary.requests, us, errors, latency:percentile(50), latency:percentile(99)))
end
"""


class Load(NamedTuple):
    """`per_cpu_s`: requests per CPU second of the server; other work on the machine affects this figure less."""

    per_s: float
    per_cpu_s: float
    p50_ms: float
    p99_ms: float
    errors: int


def load(
    server: psutil.Process, address: str, paths: list[str], seconds: float, connections: int = 16, pause_ms: int = 0,
    body: str | None = None, order: Order = "random",
) -> Load:  # fmt: skip
    """Request `paths` over `connections` for `seconds`; each connection waits `pause_ms` on average between requests.
    `order`: "random"; "zipf", the first paths most often; or "once", each path once, which may end earlier. With a
    `body`, post it to /invocations, with ID replaced by the number in the path."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: Debian's and Homebrew's package is called wrk.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "paths").write_text("\n".join(paths) + "\n")
        told_body = "nil" if body is None else f"[=[{body}]=]"
        (folder / "script.lua").write_text(_SCRIPT % (order, told_body, pause_ms, folder / "paths"))
        before = cpu_s(server)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(folder / "script.lua"), address]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=folder).stdout
        spent = cpu_s(server) - before
    told = json.loads(next(line for line in output.splitlines() if line.startswith("JSON"))[4:])
    return Load(
        told["requests"] / told["us"] * 1e6,
        told["requests"] / max(spent, 0.01),
        told["p50_us"] / 1000,
        told["p99_us"] / 1000,
        told["errors"],
    )


def cpu_s(server: psutil.Process) -> float:
    """CPU seconds of the process and all its descendants."""
    return sum(sum(one.cpu_times()[:2]) for one in [server, *server.children(recursive=True)])
