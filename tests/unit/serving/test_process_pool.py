"""A pool of processes through what must never leave it silent: loaders that die while they load, and defects."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from airflow_mcp.core.serving.frames import FrameKind
from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.serving import model_process, process_pool
from airflow_mcp.serving.errors import Problem
from airflow_mcp.serving.model_process import LinkOwner, Loader, WorkerLink
from airflow_mcp.serving.pool import ModelRequest, PoolStartError
from airflow_mcp.serving.process_pool import ProcessPool
from airflow_mcp.serving.workers import Workers


def request() -> ModelRequest:
    return ModelRequest(FrameKind.COLUMNS, b"", 1, is_alone=True)


def test_a_loader_that_is_killed_while_it_loads_is_no_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exec_ = asyncio.create_subprocess_exec

    async def killed(*arguments: Any, **options: Any) -> Any:
        process = await exec_(*arguments, **options)
        os.kill(process.pid, signal.SIGKILL)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", killed)
    workers = Workers("fraud/8", tmp_path, ServingSettings(), LinkOwner())
    with pytest.raises(PoolStartError, match="the process that loads the model ended: signal 9"):
        asyncio.run(workers.start())


class StoppedLoader:
    """A loader that does not react any more, and a process that it has started."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.loader = Loader("fraud/8", Path("/nowhere"), {}, self.lost.set)

    async def start(self) -> None:
        self.process = self.loader._process = await asyncio.create_subprocess_exec(
            *("sh", "-c", "sleep 600 & echo $!; wait"), stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        assert self.process.stdout is not None
        self.worker = int(await self.process.stdout.readline())
        self.loader._control, self.theirs = socket.socketpair()
        self.loader._control.setblocking(False)
        self.loader.can_fork = True

    async def stop(self) -> None:
        self.loader.kill_directly(self.worker)
        self.loader.kill()
        assert self.process.stdout is not None
        await self.process.stdout.read()
        await self.process.wait()
        self.loader._close()
        self.theirs.close()


def play(story: Callable[[StoppedLoader], Awaitable[None]]) -> None:
    async def run() -> None:
        stopped = StoppedLoader()
        await stopped.start()
        try:
            await asyncio.wait_for(story(stopped), 20)
        finally:
            await stopped.stop()

    uvloop.run(run())  # as the server does: asyncio's own loop also waits for the output of the processes


def test_a_process_that_its_loader_does_not_end_is_ended_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(stopped: StoppedLoader) -> None:
        link = WorkerLink(LinkOwner(), stopped.loader)
        link.is_open, link.pid = True, stopped.worker
        link.kill()
        assert json.loads(stopped.theirs.recv(100)) == {"order": "kill", "pid": stopped.worker}
        assert await stopped.process.wait() == 0  # the shell, which waits for its one process

    monkeypatch.setattr(model_process, "_DIRECT_SECONDS", 0.05)
    play(story)


def test_a_process_number_that_belongs_to_another_is_left_alone() -> None:
    async def story(stopped: StoppedLoader) -> None:
        other = await asyncio.create_subprocess_exec("sleep", "600")
        stopped.loader.kill_directly(other.pid)
        await asyncio.sleep(0.1)
        assert other.returncode is None
        other.terminate()
        assert await other.wait() == -signal.SIGTERM

    play(story)


def test_a_loader_that_does_not_react_is_ended_and_its_processes_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(stopped: StoppedLoader) -> None:
        links: list[WorkerLink] = []
        with pytest.raises(PoolStartError, match="did not react"):
            await stopped.loader.spawn(LinkOwner(), register=links.append)
        assert stopped.loader.has_ended
        assert await stopped.process.wait() == -signal.SIGKILL
        await stopped.lost.wait()
        links[0].abandon()
        os.kill(stopped.worker, 0)

    monkeypatch.setattr(model_process, "_REACTION_SECONDS", 0.05)
    play(story)


def test_a_pool_whose_replacement_meets_a_defect_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def replace(*_: Any) -> None:
        raise ValueError("not expected")

    async def run() -> None:
        pool = ProcessPool("fraud/8", tmp_path, ServingSettings())
        changes: list[str] = []
        pool.on_change = lambda: changes.append(pool.failure)
        waiting = pool.submit(request())
        pool.on_lost(WorkerLink(pool, Loader("fraud/8", tmp_path, {}, lambda: None)))
        with pytest.raises(Problem, match="does not answer any more"):
            await waiting
        assert pool.failure == changes[-1] == "a defect: ValueError"
        assert (pool.ready, pool.in_flight, pool.queued_rows) == (False, 0, 0)

    monkeypatch.setattr(Workers, "replace", replace)
    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_request_that_has_expired_leaves_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(_: Workers) -> dict[str, Any]:
        return {"is_batched": True, "why_alone": ""}

    async def run() -> None:
        pool = ProcessPool("fraud/8", tmp_path, ServingSettings(request_timeout=0.01))
        await pool.start()
        try:
            with pytest.raises(Problem, match="did not answer within"):
                await pool.submit(request())
            assert (pool.in_flight, pool.queued_rows) == (0, 0)
        finally:
            await pool.stop()

    (tmp_path / "MLmodel").write_text("flavors: {python_function: {}}\n")
    monkeypatch.setattr(Workers, "start", start)
    monkeypatch.setattr(process_pool, "_SWEEP_SECONDS", 0.01)
    asyncio.run(asyncio.wait_for(run(), 10))
