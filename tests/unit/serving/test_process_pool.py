"""A pool of processes through what must never leave it silent: loaders that die while they load, and defects."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core.serving.frames import FrameKind
from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.serving import process_pool
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
