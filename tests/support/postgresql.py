"""A real PostgreSQL server for the tests, from the programs that Debian's package installs."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import psycopg2

from tests.support.services import LOOPBACK, Service, free_port

USER = "mlflow"


def programs() -> Path | None:
    """Find the folder of PostgreSQL's programs, the newest version's; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@contextlib.contextmanager
def new_database(uri: str) -> Iterator[str]:
    """Yield the URI of a new, empty database; it is dropped at the end.

    :param uri: a server, with a superuser.
    """
    server, name = uri.rpartition("/")[0], f"test_{uuid4().hex[:12]}"
    with closing(psycopg2.connect(uri.replace("+psycopg2", ""))) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{server}/{name}"
        finally:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


class PostgresServer(Service):
    """PostgreSQL with an empty database, on loopback, without a password; its data is gone when it stops.

    It refuses to run as root: then it runs as the user ``postgres``, whom Debian's package creates.

    :param folder: folder of its log.
    :param programs: folder of its programs.
    :param fsync: whether a commit waits for the disk, as in earnest.
    """

    def __init__(self, folder: Path, programs: Path, *, fsync: bool = False) -> None:
        self._programs, self._port = programs, free_port()
        self._user = "postgres" if os.geteuid() == 0 else None
        self._home = Path(tempfile.mkdtemp(prefix="postgresql-"))
        settings = {
            "listen_addresses": LOOPBACK,
            "port": self._port,
            "unix_socket_directories": self._home,
            "fsync": "on" if fsync else "off",
        }
        command = [str(programs / "postgres"), "-D", str(self._home / "data")]
        super().__init__(
            "postgresql",
            [*command, *(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))],
            folder=folder,
            health_check=self._is_ready,
            user=self._user,
        )

    @property
    def uri(self) -> str:
        """URI of its database; SQLAlchemy 2.1 takes another driver when none is named."""
        return f"postgresql+psycopg2://{USER}@{LOOPBACK}:{self._port}/postgres"

    def start(self) -> Self:
        """Make the data folder, start the server and wait until it answers."""
        if self._user:
            owner = pwd.getpwnam(self._user)
            os.chown(self._home, owner.pw_uid, owner.pw_gid)
        made = subprocess.run(
            [
                *(str(self._programs / "initdb"), "-D", str(self._home / "data"), "-U", USER, "--auth=trust"),
                *("--encoding=UTF8", "--locale=C", "--no-sync"),
            ],
            user=self._user,
            cwd=self._home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr
        return super().start()

    def stop(self) -> None:
        """Stop it, without waiting for clients, and remove its data."""
        stop = [str(self._programs / "pg_ctl"), "stop", "--silent", "--mode=immediate", "-D", str(self._home / "data")]
        subprocess.run(stop, user=self._user, cwd=self._home, capture_output=True, check=False)
        super().stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def _is_ready(self) -> bool:
        asked = [str(self._programs / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(self._port)]
        return subprocess.run(asked, check=False, timeout=10).returncode == 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
