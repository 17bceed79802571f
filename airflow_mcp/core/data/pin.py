"""A pinned dataset: the reference to data in every step and every record."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from airflow_mcp.core.document import Document


class DatasetPin(Document):
    """One file or folder of data, pinned: the same name always means the same bytes."""

    uri: Annotated[str, Field(min_length=1)]
    """Path or URI of one CSV, Parquet or JSON Lines file, or of a folder that DVC tracks."""
    version: str = ""
    """Version label, commit, or version in the store (``etag-…``); empty when the data has none."""
    hash: str = ""
    """``sha256:<hex>`` of the bytes, or ``md5:<hex>`` from DVC (ends in ``.dir`` for a folder); empty when it is not
    known before the work starts."""
    size: Annotated[int, Field(ge=0)] | None = None
    """Bytes; None when not known."""
    remote: str = ""
    """Address of the object in the DVC remote or of the LFS store, without credentials; empty for other data."""
    ref: str = ""
    """Branch or tag that led to the version, such as ``refs/tags/v2.1``; may be empty."""
