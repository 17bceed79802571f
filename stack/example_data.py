"""The data of the example Dags, for the service ``example-data`` of docker-compose.yaml.

``first`` writes the version of the first night unless there is any version; ``night-1``, ``night-3`` and ``night-4``
write that one. ``demo/data.py`` says what is in them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path("/data/breast_cancer")
FIRST = "night-1"


def write(root: Path, version: str) -> str:
    """Write a version as a whole or not at all.

    :param root: folder of the versions.
    :param version: ``first``, or a version that ``demo.data`` knows.
    :return: what was done, as a sentence.
    :raises KeyError: when there is no such version.
    """
    root.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.name for folder in root.iterdir() if not folder.name.startswith("."))
    if version in found or (version == "first" and found):
        return f"{root} has {', '.join(found)}: nothing was written"
    from demo.data import write_version

    name = FIRST if version == "first" else version
    with TemporaryDirectory(prefix=".writing-", dir=root) as folder:
        write_version(Path(folder), name).rename(root / name)
    return f"{root / name} was written"


if __name__ == "__main__":
    print(write(ROOT, sys.argv[1]))
