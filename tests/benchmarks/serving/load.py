"""Load on a server: closed loop with wrk, open loop with a client of our own, and the CPU and memory that it costs."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

WRK = shutil.which("wrk")
HOW_TO_GET_WRK = "the closed loop needs the program wrk; Debian has it as a package: apt-get install wrk"
_TICKS = os.sysconf("SC_CLK_TCK")
_LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "errors": %d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What one level of load measured."""

    requests: int
    seconds: float
    p50: float
    """Milliseconds."""
    p95: float
    """Milliseconds; NaN when it was not measured."""
    p99: float
    """Milliseconds."""
    errors: int
    cpu: float
    """Seconds of user and system time of the server's processes."""

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    @property
    def cpu_microseconds(self) -> float:
        """CPU of the server per request."""
        return 1e6 * self.cpu / max(1, self.requests)


def closed_loop(url: str, body: bytes, connections: int, seconds: int, server: int, folder: Path) -> Load:
    """Ask as fast as the server answers, over a number of connections that stay open.

    :param server: process id of the server; its children count too.
    :param folder: folder for wrk's script.
    """
    assert WRK is not None, HOW_TO_GET_WRK
    (folder / "body.json").write_bytes(body)
    (folder / "post.lua").write_text(_LUA.format(body=folder / "body.json"))
    before = cpu_seconds(server)
    done = subprocess.run(
        [WRK, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(folder / "post.lua"), url],
        check=True,
        capture_output=True,
        text=True,
    )
    cpu = cpu_seconds(server) - before
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Load(
        *(found["requests"], found["microseconds"] / 1e6, found["p50"] / 1e3, float("nan"), found["p99"] / 1e3),
        *(found["errors"], cpu),
    )


def open_loop(url: str, body: bytes, rate: float, seconds: float, connections: int, server: int) -> Load:
    """Ask at a fixed rate, whether or not answers keep up; a latency counts from when its request was due.

    :param rate: requests per second.
    :param connections: connections that take turns.
    :param server: process id of the server; its children count too.
    """
    before = cpu_seconds(server)
    latencies, errors, taken = asyncio.run(_offer(url, body, rate, seconds, connections))
    cpu = cpu_seconds(server) - before
    ordered = sorted(latencies)
    assert ordered, "no request was answered"
    p95, p99 = (ordered[int(share * (len(ordered) - 1))] * 1e3 for share in (0.95, 0.99))
    return Load(len(ordered), taken, statistics.median(ordered) * 1e3, p95, p99, errors, cpu)


async def _offer(
    url: str, body: bytes, rate: float, seconds: float, connections: int
) -> tuple[list[float], int, float]:
    address = urlsplit(url)
    head = (
        f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    latencies: list[float] = []
    errors = 0
    started = time.perf_counter() + 0.1
    due = iter([started + number / rate for number in range(int(rate * seconds))])

    async def ask() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        for moment in due:
            await asyncio.sleep(max(0.0, moment - time.perf_counter()))
            writer.write(head + body)
            status = await _answer(reader)
            latencies.append(time.perf_counter() - moment)
            errors += status != 200
        writer.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return latencies, errors, time.perf_counter() - started


async def _answer(reader: asyncio.StreamReader) -> int:
    """Read one answer and return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split()[1])


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process and its living descendants, with that of children that ended."""
    return sum(_cpu(process) for process in tree(pid))


def memory_mebibytes(pid: int) -> float:
    """Return the proportional set size of a process and its living descendants: shared pages count once."""
    total = 0
    for process in tree(pid):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024


def tree(pid: int) -> list[int]:
    """Return a process and its living descendants."""
    found = [pid]
    for process in found:
        found.extend(_children(process))
    return found


def _children(pid: int) -> Iterator[int]:
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            yield from map(int, (task / "children").read_text().split())
    except OSError:
        return


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS
