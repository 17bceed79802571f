"""Anchors of checkpoints: what is kept stays, whatever is written over it, and the keeper goes on from it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.audit.anchors import Anchor, FolderAnchor, GitAnchor, S3Anchor, TagAnchor
from airflow_mcp.audit.checkpoints import seal, why_unanchored
from airflow_mcp.audit.stores import open_log
from airflow_mcp.core.audit.log import export
from airflow_mcp.core.audit.record import read_record
from airflow_mcp.core.audit.verify import verify
from airflow_mcp.core.signing.keys import PrivateKey
from airflow_mcp.exceptions import AnchorError, EvidenceError, InvalidArgumentError
from airflow_mcp.hooks.audit_anchors import anchors_of
from tests.support.audit_log import ACTOR, Logs, moved, new_key, sqlite_logs
from tests.support.git_server import LOGIN, PASSWORD, GitHttpServer, Repository
from tests.support.object_store import S3Server

pytestmark = pytest.mark.integration
LOG = "0123456789abcdef0123456789abcdef"
FILES = [f"{LOG}-{size:012}.txt" for size in (1, 2, 30)]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, Any]]]:
    """A bucket with object lock, and how its client is made."""
    import boto3

    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        client = {
            "endpoint_url": server.url,
            "aws_access_key_id": "tests",
            "aws_secret_access_key": "tests",
            "region_name": "us-east-1",
        }
        s3 = boto3.client("s3", **client)
        s3.create_bucket(Bucket="anchors", ObjectLockEnabledForBucket=True)
        lock = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 365}}
        s3.put_object_lock_configuration(
            Bucket="anchors", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": lock}
        )
        yield "s3://anchors", client


@pytest.fixture
def branch(tmp_path: Path) -> Repository:
    """A repository whose branch refuses force pushes and deletion."""
    repository = Repository(tmp_path / "anchors")
    repository.commit("Checkpoints of the audit log", "README")
    for name in ("receive.denyNonFastForwards", "receive.denyDeletes"):
        repository.git("config", name, "true")
    repository.git("config", "receive.denyCurrentBranch", "updateInstead")
    return repository


@pytest.fixture(params=["folder", "s3", "git", "store"])
def anchor(request: pytest.FixtureRequest, tmp_path: Path) -> Anchor:
    if request.param == "folder":
        (tmp_path / "kept").mkdir()
        return FolderAnchor(str(tmp_path / "kept"))
    if request.param == "s3":
        uri, client = request.getfixturevalue("bucket")
        return S3Anchor(f"{uri}/{tmp_path.name}", client)
    if request.param == "git":
        return GitAnchor(f"git+{request.getfixturevalue('branch').url}#main")
    (tmp_path / "stored").mkdir()
    (found,) = anchors_of([f"local://{tmp_path}/stored"])
    return found


def test_what_is_kept_is_found_and_never_replaced(anchor: Anchor) -> None:
    assert anchor.counts_alone
    places = [anchor.put(file, f"note {file}") for file in FILES]
    assert len(set(places)) == len(FILES)
    assert anchor.files(LOG) == FILES
    assert anchor.files("another") == []
    assert anchor.read(FILES[1]) == f"note {FILES[1]}"
    assert anchor.read(f"{LOG}-000000000099.txt") is None
    assert anchor.put(FILES[0], f"note {FILES[0]}").startswith(anchor.name)  # a retry
    with pytest.raises(AnchorError, match="exists with another content"):
        anchor.put(FILES[0], "another note")
    assert anchor.read(FILES[0]) == f"note {FILES[0]}"


def test_the_oldest_version_of_an_object_counts(bucket: tuple[str, dict[str, Any]]) -> None:
    import boto3
    from botocore.exceptions import ClientError

    uri, client = bucket
    anchor, s3 = S3Anchor(f"{uri}/forged", client), boto3.client("s3", **client)
    place = anchor.put(FILES[0], "the note")
    version = place.partition("?versionId=")[2]
    key = f"forged/{FILES[0]}"
    s3.put_object(Bucket="anchors", Key=key, Body=b"a forged note")
    s3.delete_object(Bucket="anchors", Key=key)  # hides it; no version is deleted
    assert (anchor.read(FILES[0]), anchor.files(LOG)) == ("the note", [FILES[0]])
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(Bucket="anchors", Key=key, VersionId=version)
    assert anchor.put(FILES[0], "the note") == place


def test_a_bucket_that_is_not_there_is_an_anchor_that_failed(bucket: tuple[str, dict[str, Any]]) -> None:
    with pytest.raises(AnchorError, match="NoSuchBucket"):
        S3Anchor("s3://nowhere", bucket[1]).put(FILES[0], "note")


def test_a_protected_branch_keeps_its_commits(branch: Repository, tmp_path: Path) -> None:
    anchor = GitAnchor(f"git+{branch.url}#main")
    place = anchor.put(FILES[0], "note")
    assert place.endswith(branch.git("rev-parse", "main"))
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", branch.url, str(clone)], check=True)
    subprocess.run(["git", "-C", str(clone), "reset", "--quiet", "--hard", "HEAD~1"], check=True)
    forced = subprocess.run(["git", "-C", str(clone), "push", "--quiet", "--force"], check=False, capture_output=True)
    assert forced.returncode != 0
    assert anchor.read(FILES[0]) == "note"


def test_somebody_who_pushes_in_between_does_not_hinder(branch: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    anchor, git, others = GitAnchor(f"git+{branch.url}#main"), GitAnchor._git, ["another"]

    def first_another(self: GitAnchor, folder: Path | None, *arguments: str) -> str:
        if arguments[0] == "push" and others:
            branch.commit(others.pop(), "README")
        return git(self, folder, *arguments)

    monkeypatch.setattr(GitAnchor, "_git", first_another)
    anchor.put(FILES[0], "note")
    assert anchor.read(FILES[0]) == "note"
    assert branch.git("rev-list", "--count", "main") == "3"


def test_a_branch_behind_a_login_is_reached_with_it_only(branch: Repository) -> None:
    branch.git("config", "http.receivepack", "true")
    with GitHttpServer(branch.folder.parent) as server:
        uri = f"git+{server.url}/{branch.folder.name}/.git#main"
        GitAnchor(uri, lambda: (LOGIN, PASSWORD)).put(FILES[0], "note")
        with pytest.raises(AnchorError, match="refuses") as error:
            GitAnchor(uri, lambda: (LOGIN, "wrong password")).put(FILES[1], "note")
    assert "wrong password" not in str(error.value)
    assert branch.git("show", f"main:{FILES[0]}") == "note"


@pytest.mark.parametrize("uri", ["git+https://x/y.git", "git+https://x/y.git#refs/tags/v1", "git+ftp://x/y#main"])
def test_an_anchor_in_git_is_a_branch(uri: str) -> None:
    with pytest.raises(InvalidArgumentError):
        GitAnchor(uri)


def test_a_tag_keeps_the_latest_checkpoint_and_never_counts_alone() -> None:
    tags: dict[str, str] = {}
    anchor = TagAnchor("fraud", lambda: tags, tags.__setitem__)
    for file in FILES:
        anchor.put(file, f"note {file}")
    assert (anchor.files(LOG), anchor.read(FILES[2])) == ([FILES[2]], f"note {FILES[2]}")
    with pytest.raises(AnchorError, match="a checkpoint of a longer log"):
        anchor.put(FILES[0], "note")
    assert not anchor.counts_alone


class TestSeal:
    private, public = new_key()
    signer = PrivateKey(private)

    @pytest.fixture
    def logs(self, tmp_path: Path) -> Logs:
        return sqlite_logs(tmp_path)

    @pytest.fixture
    def folder(self, tmp_path: Path) -> FolderAnchor:
        (tmp_path / "kept").mkdir()
        return FolderAnchor(str(tmp_path / "kept"))

    def append(self, logs: Logs, *numbers: int) -> None:
        with closing(open_log(logs.owner)) as log:
            for number in numbers:
                log.append(moved(number))

    def seal(self, logs: Logs, *anchors: Anchor) -> Any:
        with closing(open_log(logs.owner)) as log:
            return seal(log, anchors, self.signer, ACTOR, "dev")

    def test_each_checkpoint_goes_on_from_the_last_one_that_an_anchor_confirms(
        self, logs: Logs, folder: FolderAnchor
    ) -> None:
        self.append(logs, 1, 2, 3)
        first = self.seal(logs, folder)
        assert (first.verified_from, first.found.records, first.is_anchored) == (1, 5, True)
        self.append(logs, 4)
        second = self.seal(logs, folder)
        # The record of the first checkpoint, the event and the export of the second one.
        assert (second.verified_from, second.found.records) == (6, 8)
        with closing(open_log(logs.owner)) as log:
            whole = verify(log.read(export(ACTOR, "dev", reason="test")), deep=True)
        assert whole.is_whole
        assert len(folder.files(whole.log_id)) == 2

    def test_a_log_that_was_written_anew_is_found_although_it_says_so_itself(
        self, logs: Logs, folder: FolderAnchor, tmp_path: Path
    ) -> None:
        self.append(logs, 1, 2, 3)
        self.seal(logs, folder)
        (tmp_path / "other").mkdir()
        forged = FolderAnchor(str(tmp_path / "other"))
        anew = sqlite_logs(tmp_path / "anew")
        logs_id, anew_id = (
            read_record(each.sql("SELECT record FROM event WHERE seq = 1")[0][0]).event["new"]["log_id"]
            for each in (logs, anew)
        )
        self.append(anew, 1, 2, 4)
        self.seal(anew, forged)
        (note,) = (tmp_path / "kept").iterdir()
        # The anchor holds the checkpoint of the true log under the name that the forged one would have.
        (tmp_path / "kept" / note.name.replace(logs_id, anew_id)).write_text(note.read_text())
        with pytest.raises(EvidenceError, match="one of them was written anew"):
            self.seal(anew, folder)

    def test_a_changed_record_gets_no_checkpoint(self, logs: Logs, folder: FolderAnchor) -> None:
        self.append(logs, 1, 2, 3)
        logs.sql("DROP TRIGGER no_update")
        logs.sql("UPDATE event SET record = replace(record, 'fraud', 'freud') WHERE seq = 3")
        sealed = self.seal(logs, folder)
        assert (sealed.found.first_bad, sealed.places) == (3, ())

    def test_one_anchor_that_fails_is_an_event_and_the_others_are_written(
        self, logs: Logs, folder: FolderAnchor, tmp_path: Path
    ) -> None:
        away = FolderAnchor(str(tmp_path / "away"))
        sealed = self.seal(logs, away, folder)
        assert (list(sealed.failed), len(sealed.places), sealed.is_anchored) == ([away.name], 1, True)
        with closing(open_log(logs.owner)) as log:
            assert [each.event["action"] for each in log.facts("log", "audit.")][-2:] == [
                *("audit.checkpointed", "audit.anchor_failed")
            ]

    def test_a_tag_alone_is_refused(self, logs: Logs) -> None:
        with pytest.raises(InvalidArgumentError, match="one that counts alone"):
            self.seal(logs, TagAnchor("fraud", dict, lambda _, __: None))

    def test_a_day_without_an_anchor_is_told(self, logs: Logs, folder: FolderAnchor, tmp_path: Path) -> None:
        now = datetime.now(UTC)
        tag = TagAnchor("fraud", dict, lambda _, __: None)
        with closing(open_log(logs.owner)) as log:
            assert "no checkpoint has reached an anchor" in why_unanchored(log, now)
            self.seal(logs, tag, FolderAnchor(str(tmp_path / "away")))  # in MLflow only
            assert "no checkpoint has reached an anchor" in why_unanchored(log, now)
            self.seal(logs, folder)
            assert why_unanchored(log, now) == ""
            assert "could be cut unseen" in why_unanchored(log, now + timedelta(hours=25))

    def test_a_note_of_another_key_is_not_believed(self, logs: Logs, folder: FolderAnchor) -> None:
        self.seal(logs, folder)
        (note,) = Path(folder.name).iterdir()
        note.write_text(note.read_text().replace("\N{EM DASH} airflow-mcp/", "\N{EM DASH} other/"))
        with pytest.raises(EvidenceError, match="no valid signature"):
            self.seal(logs, folder)


def test_anchors_are_made_from_their_addresses(tmp_path: Path) -> None:
    made = anchors_of([str(tmp_path), {"uri": "git+https://example.com/a.git#kept"}, "s3://bucket/prefix"])
    assert [type(each).__name__ for each in made] == ["FolderAnchor", "GitAnchor", "S3Anchor"]
    for wrong, words in (
        ("relative/folder", "absolute path"),
        ({"uri": "s3://b", "key": "x"}, "uri and conn_id only"),
        ("mlflow:", "registered model"),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            anchors_of([wrong])
    with pytest.raises(InvalidArgumentError, match="at least one"):
        anchors_of([])
