"""A client that asks the model server all the time, and counts what it is answered."""

from __future__ import annotations

import csv
import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from demo.data import TARGET

_PAUSE_SECONDS = 0.2
"""About 5 requests a second: enough to meet every swap, little enough to leave the machine to the nights."""
_HURRIED_PAUSE_SECONDS = 0.02
"""About 40 requests a second: a rollout gives the new version one in twenty."""


@dataclass
class Answers:
    """What the client was answered during one night."""

    answered: int = 0
    errors: list[str] = field(default_factory=list)
    """Status and body of answers that were no predictions, and answers that contradict themselves."""
    failed: dict[str, int] = field(default_factory=dict)
    """Number of those errors by the version that was asked; empty text for none."""
    versions: list[str] = field(default_factory=list)
    """Versions that answered."""

    def __str__(self) -> str:
        return f"{self.answered:,}, {len(self.errors)}"


class Client:
    """Asks for one prediction after the other, from the first moment a model is served.

    Until then the server says that it has no model yet, which is no error. From then on everything but a prediction
    is an error, and so is an answer whose header and body name different versions.

    :param port: port of the model server on this machine.
    """

    def __init__(self, port: int) -> None:
        self._port, self._pause = port, _PAUSE_SECONDS
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._answers = Answers()
        self._has_a_model = False
        self._last_version = ""
        self._bodies: Iterator[bytes] = iter(())
        self._thread = threading.Thread(target=self._ask_on, daemon=True)

    def ask_for(self, data: Path) -> None:
        """Ask from now on for the rows of a CSV file, one after the other and again; the first call begins.

        :param data: file with a header, and the label in the column ``target``.
        """
        with data.open(newline="") as file:
            rows = [
                {name: float(value) for name, value in row.items() if name != TARGET} for row in csv.DictReader(file)
            ]
        self._bodies = itertools.cycle([json.dumps({"dataframe_records": [row]}).encode() for row in rows])
        if not self._thread.is_alive():
            self._thread.start()

    def hurry(self) -> None:
        """Ask eight times as often from now on."""
        self._pause = _HURRIED_PAUSE_SECONDS

    def take(self) -> Answers:
        """Return what was answered since the last call."""
        with self._lock:
            taken, self._answers = self._answers, Answers()
        return taken

    def wait_for(self, version: str, seconds: float) -> bool:
        """Wait until the latest answer is that of a version.

        :param seconds: time after which False is returned.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with self._lock:
                if self._last_version == version:
                    return True
            time.sleep(_PAUSE_SECONDS)
        return False

    def stop(self) -> None:
        """Stop asking."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ask_on(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._stopped.wait(self._pause):
            try:
                body = next(self._bodies)
                connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                self._note(response.status, response.getheader("X-Model-Version", ""), response.read())
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._note(0, "", f"{type(error).__name__}: {error}".encode())
        connection.close()

    def _note(self, status: int, version: str, body: bytes) -> None:
        if status == http.client.OK:
            self._has_a_model = True
        elif not self._has_a_model:
            return
        with self._lock:
            if status != http.client.OK:
                self._note_error(version, f"{status} {body.decode(errors='replace')}")
                return
            self._answers.answered += 1
            self._last_version = version
            named = json.loads(body)["model"]["version"]
            if named != version:
                self._note_error(version, f"the header names version {version}, the body version {named}")
            if version not in self._answers.versions:
                self._answers.versions.append(version)

    def _note_error(self, version: str, text: str) -> None:
        self._answers.errors.append(text)
        self._answers.failed[version] = self._answers.failed.get(version, 0) + 1
