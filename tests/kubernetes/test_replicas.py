"""Training on several pods: they find each other, conclude one MLflow run, and end together whatever happens."""

from __future__ import annotations

import pytest

from tests.kubernetes.cluster import PodWorld, training

MEET = """
import os, socket, time
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
assert os.environ["JOB_COMPLETION_INDEX"] == str(rank), "ranks differ"
if rank == 0:
    server = socket.create_server(where)
    met = []
    while len(met) < size - 1:
        other, _ = server.accept()
        met.append(other.recv(100).decode())
    print("met", *sorted(met))
else:
    assert "MLFLOW_RUN_ID" not in os.environ and os.environ["AIRFLOW_MCP_RUN_ID"], "could end the run"
    while True:
        try:
            with socket.create_connection(where, timeout=2) as connection:
                connection.sendall(b"rank-%d" % rank)
            break
        except OSError:
            time.sleep(0.2)
    raise SystemExit(0)
"""
"""Rank 0 waits for all others, by plain sockets."""
GROUP = {"replicas": 3, "rendezvous_port": 29600}


def left(world: PodWorld) -> list[str]:
    return [pod.metadata.name for pod in world.cluster.pods(world.dag_id)]


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferred"])
def test_every_rank_finds_rank_0_and_one_run_is_the_result(world: PodWorld, deferrable: bool) -> None:
    outcome = world.see_through(training(before=MEET), deferrable=deferrable, kubernetes=GROUP)
    assert outcome.state == "success", outcome.error
    world.require_one_result(outcome.result["run_id"])
    names = world.cluster.started(outcome.result["identity"])
    (leader,) = [name for name in names if not name.endswith(("-r1", "-r2"))]
    assert names == {leader, f"{leader}-r1", f"{leader}-r2"}


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferred"])
def test_a_rank_that_fails_ends_all_and_is_named(world: PodWorld, deferrable: bool) -> None:
    program = f"import os, sys\nif os.environ['RANK'] == '2': print('no more data'); sys.exit(7)\n{MEET}"
    outcome = world.see_through(training(before=program), deferrable=deferrable, kubernetes=GROUP)
    world.require_failure(outcome, "rank 2 of 3 replicas failed", "-r2", "exit code 7", "no more data")
