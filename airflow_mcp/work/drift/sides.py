"""What a command line names as one side of a comparison: a stored profile, or data."""

from __future__ import annotations

from pathlib import Path

from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.profile import DataProfile, read_profile
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.drift.dataset_comparison import Side

PROFILE_ENDING = ".json"


def read_side(address: str) -> Side:
    """Read a profile, or name data.

    :param address: path or fsspec URL; what ends in ``.json`` is a profile, all else data.
    :raises DatasetError: when a profile cannot be read.
    :raises EvidenceError: when the file is no profile.
    """
    return stored_profile(address) if address.endswith(PROFILE_ENDING) else [DatasetPin(uri=address)]


def stored_profile(address: str) -> DataProfile:
    """Read a profile from a file.

    :param address: path or fsspec URL.
    :raises DatasetError: when it cannot be read.
    :raises EvidenceError: when it is no profile.
    """
    shown = public_uri(address)
    try:
        if "://" not in address:
            text = Path(address).read_bytes()
        else:
            import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415

            with fsspec.open(address, "rb") as stream:
                text = stream.read()
    except Exception as error:  # every file system has errors of its own
        reason = " ".join(str(error).replace(address, shown).split())[:300]
        raise DatasetError(
            f"Profile {shown} cannot be read: {type(error).__name__}: {reason}. Nothing was compared."
        ) from None
    return read_profile(text, shown)
