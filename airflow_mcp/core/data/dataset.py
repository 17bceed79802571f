"""Versions of a dataset: in folders, or tracked by DVC or Git LFS in a Git repository."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from airflow_mcp.core import contract
from airflow_mcp.core.code.source import COMMIT, path_inside, repository_url
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError

LATEST = "latest"
LEAVE_UNCHECKED = "Set verify: false to leave the check to the step that reads the data. Nothing was pinned"
"""What to do when the machine that pins data cannot look into the store of DVC or Git LFS."""
TrackedBy = Literal["dvc", "lfs"]
TRACKERS: tuple[TrackedBy, ...] = get_args(TrackedBy)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def choose_version(requested: str, available: Iterable[str], *, root: str) -> str:
    """Choose a version by name, or the latest one.

    Numbers in names are compared by value and the rest by letter, so ``v10`` comes after ``v9``, and ``2026-11-02``
    after ``2026-11-01``.

    :param requested: name of a version, or ``latest``.
    :param available: names of the existing versions; one named ``latest`` is ignored, because its content changes.
    :param root: folder of the versions, for the message.
    :raises InvalidArgumentError: when the name cannot be a version (for example a path).
    :raises DatasetError: when there is no such version.
    """
    versions = sorted((name for name in available if name != LATEST and _VERSION.fullmatch(name)), key=_order)
    if requested == LATEST:
        if not versions:
            raise DatasetError(f"{root} has no data version. Expected folders like {root}/<version>/<file>")
        return versions[-1]
    if not _VERSION.fullmatch(requested):
        raise InvalidArgumentError(
            f"version must be made of letters, digits and _ . + -, or be {LATEST!r}; got {requested!r}"
        )
    if requested not in versions:
        raise DatasetError(f"{root} has no data version {requested!r}. Available: {', '.join(versions) or 'none'}")
    return requested


def _order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    parts = re.findall(r"\d+|\D+", name)
    # The name decides between v1 and v01, which are equal by value: the order of a folder's listing must not matter.
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts], name


@dataclass(frozen=True)
class RepositoryData:
    """A file or folder that DVC or Git LFS tracks, as it is in one commit of a Git repository."""

    kind: TrackedBy
    repo: str
    """Address of the repository, without credentials."""
    path: str
    """Path in the repository."""
    rev: str
    """Full commit id."""
    remote: str = ""
    """Name of the DVC remote; empty for the repository's default."""
    connection: str = ""
    """Airflow connection for the repository; empty when it needs none."""

    @property
    def uri(self) -> str:
        """Address of the data, as pins record it."""
        given = {"path": self.path, "rev": self.rev, "remote": self.remote, "connection": self.connection}
        named = urlencode({name: value for name, value in given.items() if value}, safe="/", quote_via=quote)
        return f"{self.kind}+{self.repo}#{named}"

    @property
    def name(self) -> str:
        """Name of the file or folder, without its parent folders."""
        return self.path.rpartition("/")[2]


def repository_data(uri: str) -> RepositoryData | None:
    """Read the address of tracked data: ``dvc+<repository>#path=<file>&rev=<commit>``, or ``lfs+…``.

    :param uri: any address of data.
    :return: None for any other kind of address.
    :raises InvalidArgumentError: when such an address is incomplete.
    """
    kind = _tracker(uri)
    if kind is None:
        return None
    repo, _, fragment = uri.removeprefix(f"{kind}+").partition("#")
    given = dict(parse_qsl(fragment))
    unknown = sorted(given.keys() - {"path", "rev", "connection", *(["remote"] if kind == "dvc" else [])})
    if unknown or not given.get("path") or not COMMIT.fullmatch(given.get("rev", "")):
        raise InvalidArgumentError(
            f"the URI of {kind} data must be {kind}+<repository>#path=<file>&rev=<full commit id>, optionally with "
            f"{'&remote=<name> and ' if kind == 'dvc' else ''}&connection=<id>; got {public_uri(uri)!r}. Nothing was "
            "fetched"
        )
    given["path"] = path_inside("path", given["path"])
    return RepositoryData(kind, repo=repository_url(f"repository of {kind} data", repo), **given)


def _tracker(uri: str) -> TrackedBy | None:
    return next((kind for kind in TRACKERS if uri.startswith(f"{kind}+")), None)


def data_file_name(uri: str) -> str:
    """Return the name of the file that an address of data leads to."""
    data = repository_data(uri)
    if data is not None:
        return data.name
    return (urlsplit(uri).path if "://" in uri else uri).rpartition("/")[2]


def dataset_pin(name: str, value: Any, *, hash_or_version: bool = True) -> DatasetPin:
    """Read a dataset argument.

    :param name: name of the argument, for the message.
    :param value: a mapping with ``uri`` and ``version`` or ``hash``, as ``PinDatasetOperator`` returns it.
    :param hash_or_version: whether one of the two must be given.
    :raises InvalidArgumentError: when it is not such a mapping.
    """
    if not isinstance(value, Mapping) or not value.get("uri"):
        raise InvalidArgumentError(
            f"{name} must be a mapping with uri and version or hash; got {value!r}. For example: "
            "{'uri': '/data/v1/train.csv', 'version': 'v1'}. If it comes from another task, that task pushed no XCom"
        )
    if unknown := sorted(value.keys() - DatasetPin.model_fields.keys()):
        known = ", ".join(DatasetPin.model_fields)
        raise InvalidArgumentError(f"{name} must have only the keys {known}; got {', '.join(unknown)}")
    size = value.get("size") or None
    if size is not None and not str(size).isdecimal():
        raise InvalidArgumentError(f"{name}.size must be a number of bytes; got {size!r}")
    texts = {key: str(item) for key, item in value.items() if key != "size"}
    pin = DatasetPin(**texts, size=None if size is None else int(size))
    if repository_data(pin.uri) is None and "@" in urlsplit(pin.uri).netloc:
        raise InvalidArgumentError(
            f"the uri of {name} must not have a user or password in it; got one for {public_uri(pin.uri)!r}. It would "
            "be stored with the run. Pass credentials to the workload by its environment"
        )
    if hash_or_version and not (pin.hash or pin.version):
        raise InvalidArgumentError(f"{name} {pin.uri!r} is not pinned. Set its version, its hash (sha256:…), or both")
    return pin


def data_name(pin: DatasetPin | None) -> str:
    """Return the name of data in an identity: its hash, or its version when the hash is not known yet."""
    if pin is None:
        return ""
    return pin.hash or f"version:{pin.version}:{pin.uri}"


def data_tags(pin: DatasetPin) -> dict[str, str]:
    """Return the tags that record pinned data on a run; an unknown value is empty."""
    return {
        contract.TAG_DATA_URI: public_uri(pin.uri),
        contract.TAG_DATA_VERSION: pin.version,
        contract.TAG_DATA_HASH: pin.hash,
        contract.TAG_DATA_SIZE: "" if pin.size is None else str(pin.size),
        contract.TAG_DATA_REMOTE: pin.remote,
        contract.TAG_DATA_REF: pin.ref,
    }


def public_uri(uri: str) -> str:
    """Return a URI without user, password and query, which may hold credentials; tracked data keeps its fragment."""
    parts = urlsplit(uri)
    if not parts.scheme or not parts.netloc:
        return uri
    named = f"#{parts.fragment}" if _tracker(uri) and parts.fragment else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{named}"
