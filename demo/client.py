"""A client that asks the model server all the time, and counts what it is answered."""

from __future__ import annotations

import csv
import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from demo.data import TARGET

_PAUSE_SECONDS = 0.02
"""About 40 requests a second: enough to meet every swap, little enough to leave the machine to the nights."""


@dataclass
class Answers:
    """What the client was answered during one night."""

    answered: int = 0
    errors: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    """Versions that answered, in the order in which each first did."""

    def __str__(self) -> str:
        return f"{self.answered:,}, {len(self.errors)}"


class Client:
    """Asks for one prediction after the other, from the first moment a model is served.

    Until then the server says that it has no model yet, which is no error. From then on everything but a prediction
    is an error, and so is an answer whose header and body name different versions.

    :param port: port of the model server on this machine.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._answers = Answers()
        self._has_a_model = False
        self._body = b""
        self._thread = threading.Thread(target=self._ask_on, daemon=True)

    def ask_for(self, data: Path) -> None:
        """Ask from now on for the first row of a CSV file; the first call begins.

        :param data: file with a header, and the label in the column ``target``.
        """
        with data.open(newline="") as file:
            row = next(csv.DictReader(file))
        values = {name: float(value) for name, value in row.items() if name != TARGET}
        self._body = json.dumps({"dataframe_records": [values]}).encode()
        if not self._thread.is_alive():
            self._thread.start()

    def take(self) -> Answers:
        """Return what was answered since the last call."""
        with self._lock:
            taken, self._answers = self._answers, Answers()
        return taken

    def wait_for(self, version: str, seconds: float) -> bool:
        """Wait until a version answers.

        :param seconds: time after which False is returned.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with self._lock:
                if self._answers.versions[-1:] == [version]:
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
        while not self._stopped.wait(_PAUSE_SECONDS):
            try:
                connection.request("POST", "/invocations", self._body, {"Content-Type": "application/json"})
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
                self._answers.errors.append(f"{status} {body.decode(errors='replace')}")
                return
            self._answers.answered += 1
            named = json.loads(body)["model"]["version"]
            if named != version:
                self._answers.errors.append(f"the header names version {version}, the body version {named}")
            if version not in self._answers.versions:
                self._answers.versions.append(version)
