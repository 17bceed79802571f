"""Pin a version of the data for a Dag run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.sdk import Asset

from airflow_mcp.core.argument import choice, flag, required_text
from airflow_mcp.core.code.git_refs import ResolvedRef
from airflow_mcp.core.code.source import COMMIT, path_inside, repository_url
from airflow_mcp.core.data.dataset import LATEST, choose_version, dataset_pin, public_uri
from airflow_mcp.core.data.object_version import object_version
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.data.tag_record import TagRecord, read_record, record_key
from airflow_mcp.core.identity import fingerprint
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError
from airflow_mcp.hooks.object_store import hash_file, local_path, stat
from airflow_mcp.operators.base import ModelControlOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

_RESERVED = ("version", "hash", "return_value")
_REPOSITORY_KEYS = {
    "dvc": ("repo_url", "revision", "remote", "git_conn_id", "verify"),
    "lfs": ("repo_url", "revision", "git_conn_id", "verify"),
}
OnMovedTag = Literal["fail", "accept"]
TAGS = Asset(name="airflow_mcp.data_tags")
"""Its state store holds the data that each tag pointed to; it has no events."""


class PinDatasetOperator(ModelControlOperator):
    """Choose a version of a dataset and pin each of its files, once for all later tasks.

    Exactly one of ``root``, ``uris``, ``dvc`` and ``lfs`` names the place of the data:

    - ``root``: versions are folders, ``<root>/<version>/<file>``, on a disk that the worker can read; pinned by hash;
    - ``uris``: files and objects anywhere. Files on the worker's disk are pinned by hash; files on a web server or in a
      store that the worker can read, by version id or ``ETag``; all others by ``version``, which is then required;
    - ``dvc``: files and folders that DVC tracks in a Git repository, pinned by commit and the hash that DVC recorded.
      The workload fetches them;
    - ``lfs``: files that Git LFS stores, pinned by commit and SHA-256. The workload fetches them.

    With ``dvc`` and ``lfs`` the remote must have the content. A tag must keep pointing to the data that it pointed to
    at its first use, which is recorded in Airflow's state store of the asset ``airflow_mcp.data_tags``.

    XCom: ``version``; ``hash`` of the whole version; and one mapping ``{uri, version, hash}`` for each name, if
    known with ``size`` (bytes), ``remote`` and ``ref``, to pass to the other operators (``pin.output["train"]``).

    :param root: folder of the versions (templated).
    :param files: with ``root``, ``dvc`` and ``lfs``: name in XCom to file name within the version's folder, or to the
        path in the repository (templated).
    :param uris: name in XCom to path or URI of one file (templated).
    :param dvc: ``{repo_url, revision, remote, git_conn_id, verify}``: Git URL; branch, tag or commit (default: the
        default branch); name of the DVC remote (default: the repository's own); Airflow connection for the repository;
        and ``false`` to pin without asking the remote for the content (templated).
    :param lfs: the same, without ``remote`` (templated).
    :param version: name of a version, or ``latest``. With ``uris``, a label that must always mean the same bytes; with
        ``dvc`` and ``lfs``, a branch, tag or commit that overrides ``revision`` (templated).
    :param on_moved_tag: what to do when a tag points to other data than at its first use: ``fail``, or ``accept``.
    """

    template_fields: Sequence[str] = ("root", "files", "uris", "dvc", "lfs", "version")
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        root: str | None = None,
        files: Mapping[str, str] | None = None,
        uris: Mapping[str, str] | None = None,
        dvc: Mapping[str, Any] | None = None,
        lfs: Mapping[str, Any] | None = None,
        version: str = LATEST,
        on_moved_tag: OnMovedTag = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.files = files
        self.uris = uris
        self.dvc = dvc
        self.lfs = lfs
        self.version = version
        self.on_moved_tag = choice("on_moved_tag", on_moved_tag, get_args(OnMovedTag))
        places = (("root", root), ("uris", uris), ("dvc", dvc), ("lfs", lfs))
        given = [name for name, value in places if value is not None]
        if len(given) != 1 or (files is None) != (uris is not None):
            raise InvalidArgumentError(
                "the place of data must be root with files, dvc with files, lfs with files, or uris; got "
                + (", ".join([*given, *(["files"] if files is not None else [])]) or "nothing")
            )
        if dvc is not None or lfs is not None:
            # Airflow gives a task the state store of its inlets only.
            self.inlets = [*self.inlets, TAGS]

    def act(self, context: Context) -> dict[str, Any]:
        """Choose the version and pin its files.

        :raises InvalidArgumentError: when an argument is wrong.
        :raises DatasetError: when a version or file is missing, empty or unreadable, or a tag points to other data.
        """
        requested = required_text("version", self.version)
        if self.dvc is not None:
            version, pins = self._pin_repository(context, "dvc", self.dvc, requested)
        elif self.lfs is not None:
            version, pins = self._pin_repository(context, "lfs", self.lfs, requested)
        elif self.uris is not None:
            version, pins = self._pin_uris(_named("uris", self.uris), requested)
        else:
            version, pins = self._pin_folder(requested)
        for name, pin in pins.items():
            self.log.info("  %s: %s %s", name, public_uri(pin.uri), pin.hash or pin.version)
        named = {name: pin.hash or f"{pin.version}:{pin.uri}" for name, pin in pins.items()}
        whole = f"sha256:{fingerprint(named)}"
        self.log.info("Data version %s pinned: %s", version, whole)
        return {"version": version, "hash": whole, **{name: _plain(pin) for name, pin in pins.items()}}

    def _pin_folder(self, requested: str) -> tuple[str, dict[str, DatasetPin]]:
        root = Path(required_text("root", self.root))
        if not root.is_dir():
            raise DatasetError(
                f"root must be a folder that this worker can read; got {str(root)!r}. Nothing was pinned"
            )
        files = _named("files", self.files)
        version = choose_version(requested, (path.name for path in root.iterdir() if path.is_dir()), root=str(root))
        return version, {name: _hashed(root / version / file, version) for name, file in files.items()}

    def _pin_uris(self, uris: Mapping[str, str], requested: str) -> tuple[str, dict[str, DatasetPin]]:
        label = "" if requested == LATEST else requested
        pins = {name: _pin_uri(f"uris[{name!r}]", uri, label) for name, uri in uris.items()}
        found = {name: pin.hash or pin.version for name, pin in pins.items()}
        version = label or f"content-{fingerprint(found)[:12]}"
        return version, {
            name: pin if pin.version else pin.model_copy(update={"version": version}) for name, pin in pins.items()
        }

    # --- data beside a Git repository -------------------------------------------------------------------------------

    def _pin_repository(
        self, context: Context, kind: str, given: Any, requested: str
    ) -> tuple[str, dict[str, DatasetPin]]:
        from airflow_mcp.hooks.dvc import DvcRemote  # noqa: PLC0415  (few pins need asyncio's subprocesses)
        from airflow_mcp.hooks.git import GitRemote  # noqa: PLC0415
        from airflow_mcp.hooks.lfs import LfsRemote  # noqa: PLC0415

        keys = _REPOSITORY_KEYS[kind]
        if not isinstance(given, Mapping) or not given.get("repo_url") or not given.keys() <= set(keys):
            raise InvalidArgumentError(
                f"{kind} must be a mapping with repo_url, optionally {', '.join(keys[1:])}; got {given!r}"
            )
        texts = {name: str(value) for name, value in given.items() if value and name != "verify"}
        verify = flag(f"{kind}.verify", given.get("verify", True))
        remote = GitRemote(repository_url(f"{kind}.repo_url", texts["repo_url"]), texts.get("git_conn_id") or None)
        files = {name: path_inside(f"files[{name!r}]", path) for name, path in _named("files", self.files).items()}
        revision = texts.get("revision", "") if requested == LATEST else requested
        is_commit = COMMIT.fullmatch(revision)
        at = ResolvedRef(revision, revision, is_tag=False) if is_commit else remote.resolve(revision or None)
        data = (
            LfsRemote(remote, verify=verify)
            if kind == "lfs"
            else DvcRemote(remote, texts.get("remote", ""), verify=verify)
        )
        pins = data.pins(at, tuple(dict.fromkeys(files.values())))
        if at.is_tag:
            self._keep_tag(context, remote.url, at, pins)
        return at.sha, {name: pins[path] for name, path in files.items()}

    def _keep_tag(self, context: Context, repo: str, at: ResolvedRef, pins: Mapping[str, DatasetPin]) -> None:
        """Compare a tag's data with that of its first use, and record what is accepted."""
        store = context["asset_state_store"][TAGS]
        changed, news = [], {}
        for path, pin in pins.items():
            key, found = record_key(repo, at.ref, path), TagRecord(at.sha, pin.hash)
            before = read_record(store.get(key))
            if before is None or before.commit != found.commit:
                news[key] = found
            if before is not None and not before.is_same_data(found):
                changed.append(f"{path!r} was {before.hash or 'unknown'} at commit {before.commit}, is {pin.hash}")
        if changed:
            said = f"the tag {at.name!r} of {repo} has moved to commit {at.sha}: {'; '.join(changed)}"
            if self.on_moved_tag == "fail":
                raise DatasetError(
                    f"{said}. Nothing was pinned. Name the commit, use another tag, or set on_moved_tag to 'accept' if "
                    "the move was meant"
                )
            self.log.warning("%s; the move is accepted", said)
        for key, record in news.items():
            store.set(key, record.to_json())


def _plain(pin: DatasetPin) -> dict[str, Any]:
    """Return a pin as other operators take it, without unknown values except the hash."""
    known = pin.model_dump(mode="json")
    return {name: value for name, value in known.items() if value or name in ("uri", "version", "hash")}


def _hashed(path: Path, version: str, uri: str = "") -> DatasetPin:
    digest, size = hash_file(path)
    if size == 0:
        raise DatasetError(f"data file {path} is empty. Nothing was pinned")
    return DatasetPin(uri=uri or str(path), version=version, hash=digest, size=size)


def _named(argument: str, given: Any) -> Mapping[str, str]:
    """Check a mapping of names to files."""
    reserved = sorted(given.keys() & set(_RESERVED)) if isinstance(given, Mapping) else []
    if not isinstance(given, Mapping) or not given or reserved:
        raise InvalidArgumentError(
            f"{argument} must be a mapping with at least one name, and none of {', '.join(_RESERVED)}; got {given!r}"
        )
    return {name: required_text(f"{argument}[{name!r}]", value) for name, value in given.items()}


def _pin_uri(name: str, uri: str, label: str) -> DatasetPin:
    """Pin one file; without a label the version stays empty if there is a hash."""
    dataset_pin(name, {"uri": uri}, hash_or_version=False)
    path = local_path(uri)
    if path is not None:
        # With a label the file may exist only where the workload runs.
        is_elsewhere = bool(label) and not path.exists()
        return DatasetPin(uri=uri, version=label) if is_elsewhere else _hashed(path, label, uri)
    if label:
        return DatasetPin(uri=uri, version=label)
    said = stat(uri, hint="Set version to a label that always means the same bytes. Nothing was pinned")
    if said is None:
        raise DatasetError(f"{name} {public_uri(uri)} does not exist. Nothing was pinned")
    size = said.get("size")
    if size == 0:
        raise DatasetError(f"{name} {public_uri(uri)} is empty. Nothing was pinned")
    version = object_version(said)
    if not version:
        raise DatasetError(f"{name} {public_uri(uri)}: the server sends no ETag. Set version. Nothing was pinned")
    return DatasetPin(uri=uri, version=version, size=None if size is None else int(size))
