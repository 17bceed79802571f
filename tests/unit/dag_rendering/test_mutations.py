"""Thousands of damaged files: the loader raises its own error or nothing, runs nothing, and others always load."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mcp.dag_rendering.loader import BrokenPipeline, LoadedPipeline, load_pipeline_folder
from airflow_mcp.exceptions import PipelineSpecError
from tests.support.paths import PIPELINES

FILES = PIPELINES
MUTATIONS, BATCH = 3000, 50
PIECES = (
    *(
        "\t",
        "&a ",
        "*a",
        "<<: *a\n",
        "!!python/object/apply:os.system [touch ran]",
        "!!python/name:os.system ",
        "---\n",
    ),
    *(
        "[" * 60,
        "{",
        "}",
        "]",
        ": ",
        "- ",
        "'",
        '"',
        "|\n",
        ">-\n",
        "#",
        "%",
        "@",
        "`",
        "${X}",
        "${X",
        "{{ 1 }}",
        "\x00",
    ),
    *(
        ".nan",
        "-.inf",
        "1e999",
        "9" * 400,
        "0123",
        "yes",
        "null",
        "true",
        "[]",
        "{}",
        "~",
        "\ufeff",
        "\u2028",
        "é",
        "🎉",
    ),
    *("approval: x\n", "deploy: {}\n", "name: build\n", "needs: [promote]\n", "../", "/etc/passwd", "https://a:b@c/d"),
)


def damaged(text: str, chance: random.Random, others: list[str]) -> bytes:
    """Damage a file in one to four ways."""
    for _ in range(chance.randint(1, 4)):
        lines = text.split("\n")
        here, there = chance.randrange(len(text) + 1), chance.randrange(len(lines))
        way = chance.randrange(8)
        if way == 0:
            text = text[:here] + chance.choice(PIECES) + text[here:]
        elif way == 1:
            text = text[:here] + text[here + chance.randint(1, 12) :]
        elif way == 2:
            text = "\n".join([*lines[:there], *lines[there + 1 :]])
        elif way == 3:
            text = "\n".join([*lines[:there], lines[chance.randrange(len(lines))], *lines[there:]])
        elif way == 4:
            lines[there] = " " * chance.randint(0, 8) + lines[there].lstrip()
            text = "\n".join(lines)
        elif way == 5:
            key, colon, _ = lines[there].partition(":")
            lines[there] = f"{key}{colon} {chance.choice(PIECES)}"
            text = "\n".join(lines)
        elif way == 6:
            other = chance.choice(others).split("\n")
            text = "\n".join([*lines[:there], *other[chance.randrange(len(other)) :]])
        else:
            text = text[:here]
    data = text.encode("utf-8", "surrogatepass")
    if chance.random() < 0.05:
        here = chance.randrange(len(data) + 1)
        data = data[:here] + bytes([chance.randrange(256)]) + data[here:]
    return data


def batches(seed: int) -> Iterator[list[bytes]]:
    chance = random.Random(seed)
    valid = [path.read_text(encoding="utf-8") for path in sorted(FILES.glob("*.yaml"))]
    for _ in range(MUTATIONS // BATCH):
        yield [damaged(chance.choice(valid), chance, valid) for _ in range(BATCH)]


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every process that starts and every connection that opens."""
    noted: list[str] = []
    watched = ("os.system", "subprocess.Popen", "os.exec", "os.fork", "os.posix_spawn", "socket.connect", "exec")
    is_on = True

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if is_on and event in watched and not (event == "exec" and "importlib" in repr(sys._getframe(1).f_code)):
            noted.append(event)

    sys.addaudithook(audit)
    yield noted
    is_on = False


@pytest.mark.parametrize("seed", range(3))
def test_no_damage_to_one_file_escapes_runs_or_hides_the_others(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forbidden: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pipelines"
    folder.mkdir()
    good = (FILES / "fraud_detection.yaml").read_text(encoding="utf-8").replace("fraud-detection-pipeline", "untouched")
    (folder / "good.yaml").write_text(good, encoding="utf-8")
    load_pipeline_folder(folder, "test", variables={})
    refused = 0
    for batch in batches(seed):
        for number, data in enumerate(batch):
            (folder / f"damaged{number}.yaml").write_bytes(data)
        found = load_pipeline_folder(folder, "test", variables={})
        loaded = [each for each in found if isinstance(each, LoadedPipeline)]
        assert [each.file for each in loaded if each.pipeline.metadata.name == "untouched"] == ["good.yaml"]
        for broken in found:
            if isinstance(broken, BrokenPipeline):
                refused += 1
                assert isinstance(broken.error, PipelineSpecError)
                assert broken.error.problems
                for problem in broken.error.problems:
                    assert problem.line > 0
                    assert problem.column > 0
                    assert problem.message
    assert refused > MUTATIONS / 2
    assert forbidden == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipelines"]
