"""A pinned dataset: the reference to data that every step and every record uses."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from airflow_mcp.core.document import Document


class DatasetPin(Document):
    """One file or folder of data, pinned: the same name always means the same bytes."""

    uri: Annotated[str, Field(min_length=1)]
    """Path or URI of one CSV, Parquet or JSON Lines file; a folder where DVC tracks one."""
    version: str = ""
    """Version label, commit, or what a store calls the content (``etag-…``); empty when the data has none."""
    hash: str = ""
    """``sha256:<hex>`` of the bytes, ``md5:<hex>`` as DVC has it (a folder's ends in ``.dir``); empty when not known
    before the work starts."""
    size: Annotated[int, Field(ge=0)] | None = None
    """Bytes; None when not known."""
    remote: str = ""
    """Where the bytes are kept, without credentials: the object in the DVC remote or the LFS store; else empty."""
    ref: str = ""
    """Branch or tag that the version was asked for by, such as ``refs/tags/v2.1``; else empty."""
