"""Pin a version of the data for a whole Dag run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_mcp.core.code_source import COMMIT, path_inside, repository_url
from airflow_mcp.core.dataset import LATEST, DvcData, choose_version, dataset_pin, public_uri
from airflow_mcp.core.identity import fingerprint
from airflow_mcp.exceptions import DatasetError, DataUnreachableError, InvalidArgumentError
from airflow_mcp.operators.base import ModelControlOperator, required_text

if TYPE_CHECKING:
    from airflow.sdk import Context

_CHUNK = 1024 * 1024
_HTTP_TIMEOUT_SECONDS = 30
_RESERVED = ("version", "hash", "return_value")
_DVC_KEYS = ("repo", "rev", "remote", "connection")

Pin = dict[str, str]


class PinDatasetOperator(ModelControlOperator):
    """Choose a version of a dataset and pin each of its files, once for all later tasks.

    Exactly one of ``root``, ``uris`` and ``dvc`` says where the data is:

    - ``root``: versions are folders, ``<root>/<version>/<file>``, on a disk that the worker can read; pinned by hash;
    - ``uris``: files and objects anywhere. Files of this machine are pinned by hash, those of a web server by the
      ``ETag`` that it names, and other objects by ``version``, which must then be given;
    - ``dvc``: files that DVC tracks in a Git repository, pinned by commit and by the hash that DVC recorded. They are
      fetched where the work runs.

    XCom: ``version``; ``hash`` of the whole version; and one mapping ``{uri, version, hash}`` for each name, ready to
    be handed to the other operators (``pin.output["train"]``).

    :param root: folder of the versions (templated).
    :param files: with ``root`` and ``dvc``: name in XCom to file name within the version's folder, or to the path in
        the repository (templated).
    :param uris: name in XCom to path or URI of one file (templated).
    :param dvc: ``{repo, rev, remote, connection}``: Git URL; branch, tag or commit (default: the default branch); name
        of the DVC remote (default: the repository's own); Airflow connection for the repository (templated).
    :param version: a version's name, or ``latest``. With ``uris`` a label that you answer for; with ``dvc`` a branch,
        tag or commit that goes before ``rev`` (templated).
    """

    template_fields: Sequence[str] = ("root", "files", "uris", "dvc", "version")
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        root: str | None = None,
        files: Mapping[str, str] | None = None,
        uris: Mapping[str, str] | None = None,
        dvc: Mapping[str, str] | None = None,
        version: str = LATEST,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.files = files
        self.uris = uris
        self.dvc = dvc
        self.version = version
        given = [name for name, value in (("root", root), ("uris", uris), ("dvc", dvc)) if value is not None]
        if len(given) != 1 or (files is None) != (uris is not None):
            raise InvalidArgumentError(
                f"given: {', '.join([*given, *(['files'] if files is not None else [])]) or 'nothing'}; allowed: root "
                "with files, dvc with files, or uris"
            )

    def act(self, context: Context) -> dict[str, Any]:
        """Choose the version and pin its files.

        :raises InvalidArgumentError: when an argument is wrong.
        :raises DatasetError: when version or file is missing, empty or unreadable.
        """
        requested = required_text("version", self.version)
        if self.dvc is not None:
            version, pins = self._pin_dvc(self.dvc, requested)
        elif self.uris is not None:
            version, pins = self._pin_uris(_named("uris", self.uris), requested)
        else:
            version, pins = self._pin_folder(requested)
        for name, pin in pins.items():
            self.log.info("  %s: %s %s", name, public_uri(pin["uri"]), pin["hash"] or pin["version"])
        named = {name: pin["hash"] or f"{pin['version']}:{pin['uri']}" for name, pin in pins.items()}
        whole = f"sha256:{fingerprint(named)}"
        self.log.info("Data version %s pinned: %s", version, whole)
        return {"version": version, "hash": whole, **pins}

    def _pin_folder(self, requested: str) -> tuple[str, dict[str, Pin]]:
        root = Path(required_text("root", self.root))
        if not root.is_dir():
            raise DatasetError(f"root {str(root)!r} is not a folder that this worker can read")
        files = _named("files", self.files)
        version = choose_version(requested, (path.name for path in root.iterdir() if path.is_dir()), root=str(root))
        return version, {
            name: {"uri": str(root / version / file), "version": version, "hash": _hash_file(root / version / file)}
            for name, file in files.items()
        }

    def _pin_uris(self, uris: Mapping[str, str], requested: str) -> tuple[str, dict[str, Pin]]:
        label = "" if requested == LATEST else requested
        pins = {name: _pin_uri(f"uris[{name!r}]", uri, label) for name, uri in uris.items()}
        found = {name: pin["hash"] or pin["version"] for name, pin in pins.items()}
        version = label or f"content-{fingerprint(found)[:12]}"
        return version, {name: {**pin, "version": pin["version"] or version} for name, pin in pins.items()}

    def _pin_dvc(self, dvc: Mapping[str, Any], requested: str) -> tuple[str, dict[str, Pin]]:
        from airflow_mcp.hooks.dvc import recorded_hashes  # noqa: PLC0415  (few pins need asyncio's subprocesses)
        from airflow_mcp.hooks.git import GitRemote  # noqa: PLC0415

        if not isinstance(dvc, Mapping) or not dvc.get("repo") or not dvc.keys() <= set(_DVC_KEYS):
            raise InvalidArgumentError(
                f"dvc is {dvc!r}; allowed: a mapping with repo, and perhaps rev, remote and connection"
            )
        given = {name: str(value) for name, value in dvc.items() if value}
        repo, connection = repository_url("dvc.repo", given["repo"]), given.get("connection", "")
        files = {name: path_inside(f"files[{name!r}]", path) for name, path in _named("files", self.files).items()}
        remote = GitRemote(repo, connection or None)
        rev = given.get("rev", "") if requested == LATEST else requested
        commit = rev if COMMIT.fullmatch(rev) else remote.resolve(rev or None).sha
        hashes = recorded_hashes(remote, commit, tuple(files.values()))
        return commit, {
            name: {
                "uri": DvcData(repo, path, commit, given.get("remote", ""), connection).uri,
                "version": commit,
                "hash": hashes[path],
            }
            for name, path in files.items()
        }


def _named(argument: str, given: Any) -> Mapping[str, str]:
    """Check a mapping of names to files."""
    reserved = sorted(given.keys() & set(_RESERVED)) if isinstance(given, Mapping) else []
    if not isinstance(given, Mapping) or not given or reserved:
        raise InvalidArgumentError(
            f"{argument} is {given!r}; allowed: at least one name, and none of {', '.join(_RESERVED)}"
            + (f" (found {', '.join(reserved)})" if reserved else "")
        )
    return {name: required_text(f"{argument}[{name!r}]", value) for name, value in given.items()}


def _pin_uri(name: str, uri: str, label: str) -> Pin:
    """Pin one file; without a label the version is left empty where the hash says enough."""
    dataset_pin(name, {"uri": uri}, hash_or_version=False)
    scheme = urlsplit(uri).scheme if "://" in uri else ""
    if scheme in ("", "file"):
        path = Path(unquote(urlsplit(uri).path) if scheme else uri)
        # With a label the file may be one that only the work plane sees.
        return {"uri": uri, "version": label, "hash": "" if label and not path.exists() else _hash_file(path)}
    if label:
        return {"uri": uri, "version": label, "hash": ""}
    if scheme in ("http", "https"):
        return {"uri": uri, "version": f"etag-{_etag(name, uri)}", "hash": ""}
    raise InvalidArgumentError(
        f"{name} is {public_uri(uri)!r}, which only the work plane can read: give version, a label that always means "
        "the same bytes. Nothing was pinned"
    )


def _etag(name: str, uri: str) -> str:
    """Ask a web server what it calls the present content of a file."""
    import httpx  # noqa: PLC0415  (few pins need it)

    try:
        answer = httpx.head(uri, timeout=_HTTP_TIMEOUT_SECONDS, follow_redirects=True)
    except httpx.HTTPError as error:
        raise DataUnreachableError(
            f"{name} {public_uri(uri)}: the server cannot be asked for its ETag ({type(error).__name__}); nothing was "
            "pinned"
        ) from None
    if answer.status_code >= 500:
        raise DataUnreachableError(
            f"{name} {public_uri(uri)}: the server answered {answer.status_code}; nothing was pinned"
        )
    if answer.status_code >= 400:
        raise DatasetError(f"{name} {public_uri(uri)}: the server answered {answer.status_code}; nothing was pinned")
    if answer.headers.get("content-length") == "0":
        raise DatasetError(f"{name} {public_uri(uri)} is empty; nothing was pinned")
    etag = answer.headers.get("etag", "").removeprefix("W/").strip('"')
    if not etag:
        raise DatasetError(f"{name} {public_uri(uri)}: the server names no ETag, so give version; nothing was pinned")
    return str(etag)


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
            if file.tell() == 0:
                raise DatasetError(f"data file {path} is empty; nothing was pinned")
    except OSError as error:
        raise DatasetError(f"data file {path} cannot be read: {error.strerror}; nothing was pinned") from None
    return f"sha256:{digest.hexdigest()}"
