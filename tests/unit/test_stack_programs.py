"""The programs in ``stack/``: secrets and example data that are written once and whole."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from stack import prepare_mlflow
from stack.check_health import is_healthy
from stack.example_data import write
from stack.make_secrets import READERS, SERVICE_UID, Secrets


@pytest.fixture
def owners() -> dict[str, tuple[int, int]]:
    """Owner and group of each file that was given away, by its last two parts."""
    return {}


@pytest.fixture
def made(tmp_path: Path, owners: dict[str, tuple[int, int]]) -> Secrets:
    return _secrets(tmp_path, owners)


def _secrets(root: Path, owners: dict[str, tuple[int, int]]) -> Secrets:
    def chown(path: Path, owner: int, group: int) -> None:
        owners[f"{path.parent.name}/{path.name.removeprefix('.').removesuffix('.new')}"] = owner, group

    return Secrets(root, chown)


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class TestSecrets:
    def test_are_long_and_differ_between_installations(self, tmp_path: Path) -> None:
        roots = [tmp_path / "one", tmp_path / "two"]
        for root in roots:
            root.mkdir()
            _secrets(root, {}).make()
        one, two = map(_contents, roots)
        assert one.keys() == two.keys()
        assert [name for name in one if one[name] == two[name]] == []
        assert min(map(len, one.values())) >= 32

    def test_a_second_start_changes_nothing(self, made: Secrets, tmp_path: Path) -> None:
        made.make()
        before = _contents(tmp_path)
        again = _secrets(tmp_path, {})
        again.make()
        assert _contents(tmp_path) == before
        assert again.written == []

    def test_one_that_was_removed_is_made_anew_and_the_others_stay(self, made: Secrets, tmp_path: Path) -> None:
        made.make()
        before = _contents(tmp_path)
        (tmp_path / "airflow" / "jwt_secret").unlink()
        made.make()
        after = _contents(tmp_path)
        assert [name for name in before if before[name] != after[name]] == ["airflow/jwt_secret"]

    def test_what_a_kill_left_behind_is_not_taken_for_a_secret(self, made: Secrets, tmp_path: Path) -> None:
        (tmp_path / "airflow").mkdir()
        (tmp_path / "airflow" / ".jwt_secret.new").write_text("ha")
        made.make()
        assert len((tmp_path / "airflow" / "jwt_secret").read_text()) > 32
        assert list((tmp_path / "airflow").glob(".*")) == []

    def test_belong_to_the_service_that_reads_them(
        self, made: Secrets, tmp_path: Path, owners: dict[str, tuple[int, int]]
    ) -> None:
        made.make()
        for name in _contents(tmp_path):
            private = name.endswith("/pgpass")
            assert owners[name] == (SERVICE_UID if private else 0, READERS[name.partition("/")[0]])
            assert (tmp_path / name).stat().st_mode & 0o777 == (0o400 if private else 0o440)

    def test_keys_and_passwords_fit_together(self, made: Secrets, tmp_path: Path) -> None:
        made.make()
        read = {name: content.decode() for name, content in _contents(tmp_path).items()}
        assert len(base64.urlsafe_b64decode(read["airflow/fernet_key"])) == 32
        for name in ("airflow", "mlflow"):
            password = read[f"postgres/{name}_password"]
            assert read[f"{name}/pgpass"] == f"postgres:5432:{name}:{name}:{password}\n"
        (key,) = json.loads(read["s3/identities.json"])["identities"][0]["credentials"]
        assert key["accessKey"] in read["mlflow/s3_credentials"]
        assert key["secretKey"] in read["mlflow/s3_credentials"]

    def test_people_keep_their_passwords_when_others_come_and_go(self, made: Secrets, tmp_path: Path) -> None:
        def logins(users: str) -> dict[str, str]:
            made.make_logins(tmp_path, users)
            return dict(json.loads((tmp_path / "passwords.json").read_text()))

        first = logins("admin:admin")
        second = logins("admin:admin, eva:viewer")
        third = logins("eva:viewer")
        assert set(second) == {"admin", "eva"}
        assert second["admin"] == first["admin"] != second["eva"]
        assert third == {"eva": second["eva"]}

    def test_a_kubeconfig_is_copied_at_every_start_and_goes_when_it_is_gone(
        self, made: Secrets, tmp_path: Path, owners: dict[str, tuple[int, int]]
    ) -> None:
        source, copy = tmp_path / "config", tmp_path / "airflow" / "kubeconfig"
        made.make()
        for text in ("one", "two"):
            source.write_text(text)
            made.copy_kubeconfig(source)
            assert copy.read_text() == text
        assert owners["airflow/kubeconfig"] == (0, READERS["airflow"])
        source.unlink()
        made.copy_kubeconfig(source)
        assert not copy.exists()


class TestExampleData:
    def test_the_first_version_is_written_once(self, tmp_path: Path) -> None:
        assert "was written" in write(tmp_path / "data", "first")
        before = _contents(tmp_path)
        assert "nothing was written" in write(tmp_path / "data", "first")
        assert _contents(tmp_path) == before
        assert set(before) == {f"data/night-1/{name}.csv" for name in ("train", "evaluation", "recent")}

    def test_another_version_comes_beside_it(self, tmp_path: Path) -> None:
        write(tmp_path, "first")
        write(tmp_path, "night-3")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["night-1", "night-3"]

    def test_an_unknown_version_leaves_nothing_behind(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError):
            write(tmp_path, "night-9")
        assert list(tmp_path.iterdir()) == []


class TestBucket:
    @pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://no-such-host.invalid:8333"])
    def test_a_store_that_is_not_there_ends_with_what_to_do(
        self, address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            monkeypatch.setenv(name, "us-east-1")
        monkeypatch.setattr(prepare_mlflow, "_STORE_SECONDS", 0)
        with pytest.raises(SystemExit, match="Start it with --profile s3, or unset STACK_ARTIFACTS"):
            prepare_mlflow.make_bucket("s3://artifacts", address)


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        code, body = (200, self.path[1:].replace("'", '"')) if self.path != "/broken" else (503, "")
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class TestHealth:
    @pytest.mark.parametrize(
        ("answer", "healthy"),
        [
            ("{'triggerer':{'status':'healthy'}}", True),
            ("{'triggerer':{'status':'unhealthy'}}", False),
            ("{'triggerer':{'status':null}}", False),
            ("{'triggerer':null}", False),
            ("{'scheduler':{'status':'healthy'}}", False),
        ],
    )
    def test_is_what_airflow_says_of_the_component(self, server: str, answer: str, healthy: bool) -> None:
        assert is_healthy(f"{server}/{answer}", "triggerer") is healthy

    def test_of_a_server_is_that_it_answers(self, server: str) -> None:
        assert is_healthy(f"{server}/anything")

    @pytest.mark.parametrize(("path", "component"), [("broken", None), ("no-json", "triggerer")])
    def test_an_error_is_not_health(self, server: str, path: str, component: str | None) -> None:
        with pytest.raises((OSError, ValueError)):
            is_healthy(f"{server}/{path}", component)

    def test_nobody_listening_is_not_health(self) -> None:
        with pytest.raises(OSError, match="refused"):
            is_healthy("http://127.0.0.1:9")
