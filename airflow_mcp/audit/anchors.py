"""Places for checkpoints that the owner of the log cannot write to: folders, S3, Git and MLflow; without Airflow."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from airflow_mcp.core.code.git_environment import git_environment
from airflow_mcp.core.code.source import repository_url
from airflow_mcp.exceptions import AnchorError, InvalidArgumentError

GIT_TIMEOUT = 60
"""Seconds for one command of Git."""
_TRIES = 3
"""How often a commit is made again when somebody else has pushed in between."""
_AUTHOR = ("-c", "user.name=airflow-mcp", "-c", "user.email=airflow-mcp@localhost")


class Anchor(Protocol):
    """A place that keeps checkpoints. What it has is never replaced."""

    @property
    def name(self) -> str:
        """The place, for messages; without a credential."""

    @property
    def counts_alone(self) -> bool:
        """Whether it counts without another one: its administrators are others than those of the log."""

    def put(self, file: str, note: str) -> str:
        """Keep a note, and return exactly where it is.

        :raises AnchorError: when it cannot be written, or the place has another note of this name.
        """

    def read(self, file: str) -> str | None:
        """Return the note that was kept first under a name; None when there is none.

        :raises AnchorError: when the place does not answer.
        """

    def files(self, log_id: str) -> list[str]:
        """Return the names of all notes of one log, the smallest first.

        :raises AnchorError: when the place does not answer.
        """


def require_same(found: str | None, note: str, place: str) -> None:
    """Check that a place has this note and no other.

    :raises AnchorError: when it has another one: somebody else has signed a checkpoint of the same size.
    """
    if found != note:
        raise AnchorError(f"{place} exists with another content. It was not replaced; compare the two checkpoints")


class FolderAnchor:
    """A folder, such as a mounted bucket with object lock.

    :param folder: its path; must exist.
    """

    counts_alone = True

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self.name = folder

    def put(self, file: str, note: str) -> str:
        """Write a file, unless it exists."""
        place = self._folder / file
        try:
            with place.open("x", encoding="utf-8") as out:
                out.write(note)
                out.flush()
                os.fsync(out.fileno())
        except FileExistsError:
            require_same(self.read(file), note, str(place))
        except OSError as error:
            raise AnchorError(f"{place} cannot be written: {error.strerror}") from None
        return str(place)

    def read(self, file: str) -> str | None:
        """Return the content of a file."""
        try:
            return (self._folder / file).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise AnchorError(f"{self._folder / file} cannot be read: {error}") from None

    def files(self, log_id: str) -> list[str]:
        """Return the names of the files of one log."""
        if not self._folder.is_dir():
            raise AnchorError(f"{self._folder} is not a folder")
        return sorted(path.name for path in self._folder.glob(f"{log_id}-*.txt"))


class S3Anchor:
    """A bucket of S3, with object lock in mode COMPLIANCE so that no version of an object can be deleted.

    An overwrite would make a newer version, and a deletion would hide the object: so the oldest version counts.

    :param uri: ``s3://bucket/prefix``.
    :param client: keyword arguments of ``boto3.client``; what is missing is taken from the machine's settings.
    :raises InvalidArgumentError: when the extra ``s3`` is not installed.
    """

    counts_alone = True

    def __init__(self, uri: str, client: Mapping[str, Any] | None = None) -> None:
        try:
            import boto3  # noqa: PLC0415  (0.3 s, and only where S3 is an anchor)
            from botocore.config import Config  # noqa: PLC0415
        except ImportError:
            raise InvalidArgumentError(
                f"anchor {uri} needs the extra s3, which is not installed here: pip install 'airflow-mcp[s3]'"
            ) from None
        self.name = uri.rstrip("/")
        self._bucket, _, prefix = uri.removeprefix("s3://").strip("/").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        config = Config(connect_timeout=10, read_timeout=20, retries={"total_max_attempts": 3})
        self._client = boto3.client("s3", config=config, **(client or {}))

    def put(self, file: str, note: str) -> str:
        """Write an object, unless it exists, and return its address with its version."""
        key = self._prefix + file
        with self._asking():
            self._client.put_object(
                Bucket=self._bucket, Key=key, Body=note.encode(), ContentType="text/plain", IfNoneMatch="*"
            )
        # Also after a success: where somebody hid the object, it counts as one that does not exist.
        version, found = self._oldest(key)
        require_same(found, note, f"{self.name}/{file}")
        return f"{self.name}/{file}" + (f"?versionId={version}" if version not in ("", "null") else "")

    def read(self, file: str) -> str | None:
        """Return the oldest version of an object, whatever was written over it since."""
        return self._oldest(self._prefix + file)[1]

    def files(self, log_id: str) -> list[str]:
        """Return the names of all objects of one log, also of those that were deleted or hidden."""
        return sorted({key.removeprefix(self._prefix) for key, _ in self._versions(f"{self._prefix}{log_id}-")})

    def _oldest(self, key: str) -> tuple[str, str | None]:
        versions = [version for found, version in self._versions(key) if found == key]
        if not versions:
            return "", None
        with self._asking():
            # Times are whole seconds; of one second, S3 lists the version that was stored last first.
            oldest = min(reversed(versions), key=lambda each: each["LastModified"])["VersionId"]
            answer = self._client.get_object(Bucket=self._bucket, Key=key, VersionId=oldest)
            return oldest, answer["Body"].read().decode("utf-8", "replace")
        raise AnchorError(f"{self.name}: {key} cannot be read")

    def _versions(self, prefix: str) -> Iterator[tuple[str, Any]]:
        with self._asking():
            pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                for version in page.get("Versions", ()):
                    yield version["Key"], version

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn errors of the client into ours; that an object exists already is none."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code not in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise AnchorError(f"{self.name} refuses: {code or type(error).__name__}") from None
        except BotoCoreError as error:
            raise AnchorError(f"{self.name} does not answer: {type(error).__name__}") from None


class GitAnchor:
    """A branch that refuses force pushes: each checkpoint is a commit. A tag would not do, because it can be moved.

    :param uri: ``git+https://host/repository.git#branch``; ``git+ssh`` and ``git+file`` too.
    :param credentials: returns login and password.
    :raises InvalidArgumentError: when it names no branch, or its address is not one of a repository.
    """

    counts_alone = True

    def __init__(self, uri: str, credentials: Callable[[], tuple[str, str]] = lambda: ("", "")) -> None:
        address, _, self._branch = uri.removeprefix("git+").partition("#")
        if not self._branch or self._branch.startswith(("-", "refs/tags/")):
            raise InvalidArgumentError(
                f"an anchor in Git must name a branch, git+https://host/repo.git#branch; got {uri!r}"
            )
        self._url, self._credentials, self.name = repository_url("anchor", address), credentials, uri

    def put(self, file: str, note: str) -> str:
        """Commit a file and push the commit, without force; the file is never replaced."""
        for left in reversed(range(_TRIES)):
            with self._clone() as folder:
                path = folder / file
                if path.exists():
                    require_same(path.read_text(encoding="utf-8"), note, f"{self.name} {file}")
                    return f"{self.name}@{self._git(folder, 'rev-parse', 'HEAD').strip()}"
                path.write_text(note, encoding="utf-8")
                self._git(folder, "add", "--", file)
                self._git(folder, *_AUTHOR, "commit", "--quiet", "--message", f"Checkpoint {file}")
                try:
                    self._git(folder, "push", "--quiet", "origin", f"HEAD:refs/heads/{self._branch}")
                except AnchorError:
                    if not left:
                        raise
                    continue  # somebody else has pushed: once more on top of that
                return f"{self.name}@{self._git(folder, 'rev-parse', 'HEAD').strip()}"
        raise AnchorError(f"{self.name}: nothing was pushed")

    def read(self, file: str) -> str | None:
        """Return a file of the branch."""
        with self._clone() as folder:
            return (folder / file).read_text(encoding="utf-8") if (folder / file).is_file() else None

    def files(self, log_id: str) -> list[str]:
        """Return the names of the files of one log on the branch."""
        with self._clone() as folder:
            return sorted(path.name for path in folder.glob(f"{log_id}-*.txt"))

    @contextmanager
    def _clone(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="airflow-mcp-anchor-") as home:
            folder = Path(home) / "branch"
            what = ("--quiet", "--depth=1", "--no-tags", "--single-branch", f"--branch={self._branch}", "--template=")
            self._git(None, "clone", *what, "--", self._url, str(folder))
            yield folder

    def _git(self, folder: Path | None, *arguments: str) -> str:
        secrets = self._credentials()
        inside = ("-C", str(folder)) if folder else ()
        try:
            done = subprocess.run(
                ["git", *inside, *arguments],  # noqa: S607
                env=git_environment(self._url, os.environ, *secrets),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=GIT_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AnchorError(f"{self.name} does not answer: {type(error).__name__}") from None
        if done.returncode:
            said = " ".join(done.stderr.split())[-300:]
            for secret in filter(None, secrets):
                said = said.replace(secret, "***")
            raise AnchorError(f"{self.name} refuses: {said or 'Git reports nothing'}")
        return done.stdout


class TagAnchor:
    """A tag of a registered model in MLflow: one more place to look, which never counts alone.

    It keeps the latest checkpoint only, and never one of a shorter log.

    :param model_name: registered model; must exist.
    :param read_tags: returns the tags of the model.
    :param write_tag: writes a tag of the model.
    """

    counts_alone = False
    TAG = "airflow_mcp.audit_checkpoint."

    def __init__(
        self, model_name: str, read_tags: Callable[[], Mapping[str, str]], write_tag: Callable[[str, str], None]
    ) -> None:
        self._read_tags, self._write_tag, self.name = read_tags, write_tag, f"mlflow:{model_name}"

    def put(self, file: str, note: str) -> str:
        """Write the tag of the log, unless it has a later checkpoint."""
        log_id, _, _ = file.rpartition("-")
        kept = self._tags(log_id)
        if kept and max(kept) > file:
            raise AnchorError(f"{self.name} has a checkpoint of a longer log, {max(kept)}. It was not replaced")
        if file in kept:
            require_same(kept[file], note, f"{self.name} {file}")
        else:
            self._write_tag(self.TAG + log_id, f"{file}\n{note}")
        return f"{self.name} tag {self.TAG}{log_id}"

    def read(self, file: str) -> str | None:
        """Return the checkpoint in the tag, if it is this one."""
        return self._tags(file.rpartition("-")[0]).get(file)

    def files(self, log_id: str) -> list[str]:
        """Return the name of the checkpoint in the tag."""
        return list(self._tags(log_id))

    def _tags(self, log_id: str) -> dict[str, str]:
        file, _, note = self._read_tags().get(self.TAG + log_id, "").partition("\n")
        return {file: note} if note else {}


class StoreAnchor:
    """An object store that a client of fsspec reaches, with its own way to write an object only if there is none.

    :param uri: address of a folder in the store.
    :param open_path: returns path and file system of an object below it.
    """

    counts_alone = True

    def __init__(self, uri: str, open_path: Callable[[str], tuple[Any, str]]) -> None:
        self.name, self._open_path = uri.rstrip("/"), open_path

    def put(self, file: str, note: str) -> str:
        """Write an object, unless it exists."""
        system, path = self._open(file)
        place = f"{self.name}/{file}"
        try:
            # The stores' clients translate it: IfNoneMatch, ifGenerationMatch=0, or overwrite=False.
            system.pipe_file(path, note.encode(), mode="create")
        except FileExistsError:
            require_same(self.read(file), note, place)
        except Exception as error:  # every store's client raises its own kinds
            raise AnchorError(f"{place} cannot be written: {type(error).__name__}") from None
        return place + self._version(system, path)

    def read(self, file: str) -> str | None:
        """Return the content of an object."""
        system, path = self._open(file)
        try:
            return str(system.cat_file(path).decode("utf-8", "replace"))
        except FileNotFoundError:
            return None
        except Exception as error:  # every store's client raises its own kinds
            raise AnchorError(f"{self.name}/{file} cannot be read: {type(error).__name__}") from None

    def files(self, log_id: str) -> list[str]:
        """Return the names of the objects of one log."""
        system, path = self._open("")
        try:
            found = [str(each).rpartition("/")[2] for each in system.ls(path.rstrip("/"), detail=False)]
        except Exception as error:  # every store's client raises its own kinds
            raise AnchorError(f"{self.name} cannot be listed: {type(error).__name__}") from None
        return sorted(each for each in found if each.startswith(f"{log_id}-"))

    def _open(self, file: str) -> tuple[Any, str]:
        try:
            return self._open_path(f"{self.name}/{file}")
        except (ValueError, ImportError) as error:
            raise InvalidArgumentError(f"anchor {self.name} cannot be opened here: {error}") from None

    def _version(self, system: Any, path: str) -> str:
        with suppress(Exception):  # the address is enough
            found = {str(name).lower(): value for name, value in system.info(path).items()}
            version = next((found[name] for name in ("versionid", "version_id", "generation") if found.get(name)), "")
            return f"?version={version}" if version else ""
        return ""
