"""The secrets of docker-compose.yaml: random, made once into a volume, each readable by the services that need it.

``make`` writes what is missing and leaves every file that exists as it is. ``show`` prints what people type to log in.
``new-passwords`` makes new passwords for people; restart ``airflow-api-server`` afterwards.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

ROOT, LOGIN, S3_DATA = Path("/secrets"), Path("/login"), Path("/s3-data")
KUBECONFIG = Path("/run/kubeconfig")
SERVICE_UID = 10001
"""The user of the services that are ours."""
READERS = {"airflow": 10002, "mlflow": 10003, "postgres": 10004, "s3": 10005, "monitoring": 10006, "grafana": 10007}
"""Folders, and the group that reads each: services name it in ``group_add``."""

ChangeOwner = Callable[[Path, int, int], None]


class Secrets:
    """The folder of all secrets, with a folder for each group of readers.

    :param root: folder of the secrets.
    :param chown: what gives a file away; only root may do that.
    """

    def __init__(self, root: Path, chown: ChangeOwner = os.chown) -> None:
        self._root, self._chown = root, chown
        self.written: list[str] = []

    def make(self) -> None:
        """Write every secret of a service that is missing."""
        for name, group in READERS.items():
            folder = self._root / name
            folder.mkdir(mode=0o750, exist_ok=True)
            self._chown(folder, 0, group)
        # Fernet takes 32 bytes, no more and no less; tokens are signed with SHA-512, which wants 64.
        for name, size in (("fernet_key", 32), ("api_secret_key", 32), ("jwt_secret", 64)):
            self._once(f"airflow/{name}", base64.urlsafe_b64encode(secrets.token_bytes(size)).decode())
        self._once("postgres/superuser_password", secrets.token_urlsafe(32))
        for name in ("airflow", "mlflow"):
            password = self._once(f"postgres/{name}_password", secrets.token_urlsafe(32))
            # libpq ignores a file of passwords that anybody but its owner may read.
            self._once(f"{name}/pgpass", f"postgres:5432:{name}:{name}:{password}\n", owner=SERVICE_UID)
        self._make_s3_keys()
        # Prometheus asks with the token that Airflow's API server expects.
        token = self._once("airflow/metrics_token", secrets.token_urlsafe(32))
        self._once("monitoring/metrics_token", token)
        self._once("grafana/admin_password", secrets.token_urlsafe(24))

    def make_logins(self, folder: Path, users: str) -> None:
        """Write a password for everybody who may log in and has none; drop those of everybody else.

        :param folder: folder of the file.
        :param users: people in the form of Airflow: ``name:role,name:role``.
        """
        path = folder / "passwords.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        names = [user.partition(":")[0].strip() for user in users.split(",") if user.strip()]
        wanted = {name: known.get(name) or secrets.token_urlsafe(18) for name in names}
        if wanted != known:
            self._replace(path, json.dumps(wanted), 0o600, SERVICE_UID, SERVICE_UID)

    def copy_kubeconfig(self, source: Path) -> None:
        """Copy a kubeconfig of the host, which often only its owner may read, to where Airflow may read it.

        :param source: the file as it is mounted; the copy is removed when it is missing.
        """
        copy = self._root / "airflow" / "kubeconfig"
        if source.is_file():
            self._replace(copy, source.read_text(), 0o440, 0, READERS["airflow"])
        else:
            copy.unlink(missing_ok=True)

    def _make_s3_keys(self) -> None:
        """Write the keys of the S3 store in its own form, and the same keys in the form of MLflow's client."""
        credentials = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_urlsafe(32)}
        identity = {"name": "mlflow", "credentials": [credentials], "actions": ["Admin"]}
        kept = json.loads(self._once("s3/identities.json", json.dumps({"identities": [identity]})))
        key = kept["identities"][0]["credentials"][0]
        self._once(
            "mlflow/s3_credentials",
            f"[default]\naws_access_key_id = {key['accessKey']}\naws_secret_access_key = {key['secretKey']}\n",
        )

    def _once(self, name: str, text: str, owner: int = 0) -> str:
        """Write a file unless it exists, and return what is in it."""
        path = self._root / name
        if not path.exists():
            self._replace(path, text, 0o400 if owner else 0o440, owner, READERS[path.parent.name])
        return path.read_text()

    def _replace(self, path: Path, text: str, mode: int, owner: int, group: int) -> None:
        """Write a file as a whole: after a kill, nobody finds half a secret."""
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        self._chown(new, owner, group)
        new.rename(path)
        self.written.append(str(path))


def main(arguments: list[str]) -> None:
    """Run a command.

    :param arguments: ``make``, ``show`` or ``new-passwords``.
    :raises SystemExit: for any other.
    """
    command = arguments[0] if arguments else ""
    if command == "show":
        for name, password in json.loads((LOGIN / "passwords.json").read_text()).items():
            print(f"{name}  {password}")
        print(f"admin@grafana  {(ROOT / 'grafana' / 'admin_password').read_text()}")
        return
    if command not in ("make", "new-passwords"):
        sys.exit(f"the command must be one of make, show, new-passwords; got {command!r}")
    made = Secrets(ROOT)
    made.make()
    if command == "new-passwords":
        (LOGIN / "passwords.json").unlink(missing_ok=True)
    made.make_logins(LOGIN, os.environ["STACK_USERS"])
    made.copy_kubeconfig(KUBECONFIG)
    os.chown(S3_DATA, SERVICE_UID, SERVICE_UID)  # the image of the store is not ours, and its folder belongs to root
    for path in made.written:
        print(f"{path} was written")


if __name__ == "__main__":
    main(sys.argv[1:])
