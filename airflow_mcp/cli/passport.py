"""``airflow-mcp passport``: shows and verifies what a model version was made from."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli.governance import audit_settings
from airflow_mcp.cli.options import add_action, add_format, add_tracking_uri
from airflow_mcp.cli.registry_server import registry_server
from airflow_mcp.core.argument import version_number
from airflow_mcp.core.document import plain
from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.passport.dsse import read_envelope, verify
from airflow_mcp.core.passport.statement import Statement, read_statement
from airflow_mcp.core.passport.verify import passport_of, require_files, verify_tagged
from airflow_mcp.core.registry.copies import NOT_OF_THE_MODEL
from airflow_mcp.core.signing.keys import VerificationKey, read_public_keys
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError, ModelControlPlaneError, PassportError
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.mlflow_client.version_files import FileStream, version_files
from airflow_mcp.registry.passports import passport_subject, require_unchanged
from airflow_mcp.serving.cache import digest_of

FILE_NAME = "passport.dsse.json"
"""Name of the passport beside the files of a model, which is not one of them."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = command.add_subparsers(dest="action", required=True)
    _action(actions, "show", "show a passport; nothing is verified", _show)
    check = _action(
        actions, "verify", "check signature, files and facts; exit code 1 if something does not fit", _verify
    )
    check.add_argument("--key", required=True, metavar="FILE", help="public keys whose signatures count, PEM")
    check.add_argument("--no-files", action="store_true", help="of a version: do not download and hash the files")


def _action(actions: Any, name: str, what: str, answer: Any) -> argparse.ArgumentParser:
    action = add_action(actions, name, what, answer)
    action.add_argument("place", metavar="MODEL|FOLDER", help="registered model, or a folder with the files of a model")
    action.add_argument("version", nargs="?", default="", help="version of the registered model")
    action.add_argument(
        "--passport", default="", metavar="FILE", help=f"the signed passport of a folder; default: {FILE_NAME} in it"
    )
    add_tracking_uri(action)
    add_format(action)
    return action


def run(parsed: argparse.Namespace) -> int:
    """Run the action; 1 from ``verify`` means that something does not fit, 2 that nothing can be said."""
    if not parsed.version and not Path(parsed.place).is_dir():
        raise InvalidArgumentError(
            "the first argument must be a folder, or a registered model followed by the number of a version; got "
            f"{parsed.place!r}"
        )
    return int(parsed.answer(parsed))


@contextmanager
def _version(parsed: argparse.Namespace) -> Iterator[tuple[DirectMlflow, ModelVersion]]:
    parsed.model_name = parsed.place
    with registry_server(parsed) as mlflow:
        yield mlflow, mlflow.get_model_version(parsed.place, version_number("version", parsed.version))


def _show(parsed: argparse.Namespace) -> int:
    if parsed.version:
        with _version(parsed) as (_, version):
            envelope = passport_of(version.tags)
    else:
        envelope = _read(_place(parsed))
    statement = read_statement(read_envelope(envelope).payload)
    if parsed.format == "json":
        print(json.dumps({"passport": statement.digest, **json.loads(statement.payload)}, indent=2))
        return 0
    print(f"passport {statement.digest}\nfiles    {statement.files}")
    for field, value in plain(statement.passport).items():
        print(f"{field}:{_shown(value)}")
    return 0


def _shown(value: Any, indent: str = "  ") -> str:
    """Return a value as indented lines."""
    match value:
        case dict() if value:
            return "".join(f"\n{indent}{name}:{_shown(item, indent + '  ')}" for name, item in value.items())
        case list() if value:
            return "".join(f"\n{indent}-{_shown(item, indent + '  ')}" for item in value)
        case _:
            return f" {value if value not in ('', None, [], {}) else '-'}"


@dataclass
class _Finding:
    """What a verification found."""

    statement: Statement | None = None
    problem: str = ""
    files: bool = True
    """Whether the files themselves were hashed."""


def _verify(parsed: argparse.Namespace) -> int:
    found = _Finding()
    try:
        keys = read_public_keys(_read(Path(parsed.key)))
        if parsed.version:
            _verify_version(parsed, keys, found)
        else:
            _verify_folder(parsed, keys, found)
    except PassportError as error:
        found.problem = str(error)
    except ModelControlPlaneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _print(parsed, found)
    return 1 if found.problem else 0


def _print(parsed: argparse.Namespace, found: _Finding) -> None:
    digest = found.statement.digest if found.statement else None
    if parsed.format == "json":
        said = {"fits": not found.problem, "passport": digest, "problem": found.problem, "files_hashed": found.files}
        print(json.dumps(said, indent=2))
    elif found.problem:
        print(f"DOES NOT FIT: {found.problem}")
    else:
        print(f"fits: passport {digest}")
        if not found.files:
            print("the files themselves were not hashed")


def _verify_folder(parsed: argparse.Namespace, keys: tuple[VerificationKey, ...], found: _Finding) -> None:
    statement = read_statement(verify(_read(_place(parsed)), keys))
    found.statement = statement
    require_files(statement, digest_of(Path(parsed.place), {*NOT_OF_THE_MODEL, FILE_NAME}))


def _verify_version(parsed: argparse.Namespace, keys: tuple[VerificationKey, ...], found: _Finding) -> None:
    found.files = not parsed.no_files
    with _version(parsed) as (mlflow, version):
        signed_at = _issued_at(passport_of(version.tags))
        statement = verify_tagged(version.tags, keys, model_name=version.name, signed_at=signed_at)
        found.statement = statement
        if found.files:
            require_files(statement, _downloaded(mlflow, version))
        require_unchanged(mlflow, version, statement)


def _issued_at(envelope: str) -> datetime | None:
    """Return when the audit log was told of a passport; None when no log is configured.

    :raises PassportError: when the log does not know it.
    """
    settings = audit_settings()
    if settings is None:
        return None
    digest = read_statement(read_envelope(envelope).payload).digest
    with closing(open_log(settings)) as log:
        records = log.facts(passport_subject(digest), "passport.issued")
    if not records:
        raise PassportError(f"passport.issued: the audit log {settings.name} does not know passport {digest}")
    return datetime.fromisoformat(records[0].recorded_at)


def _downloaded(mlflow: DirectMlflow, version: ModelVersion) -> str:
    """Return the digest of the files that the server returns."""
    files = mlflow.perform(version_files(version))

    async def save(folder: Path) -> None:
        stream = FileStream(mlflow.settings)
        try:
            for path in files.sizes:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                await stream.save(files, path, folder / path)
        finally:
            await stream.close()

    with TemporaryDirectory(prefix="airflow-mcp-") as folder:
        asyncio.run(save(Path(folder)))
        return digest_of(Path(folder))


def _place(parsed: argparse.Namespace) -> Path:
    return Path(parsed.passport) if parsed.passport else Path(parsed.place) / FILE_NAME


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvidenceError(f"{path} cannot be read: {error}. Nothing was verified") from None
