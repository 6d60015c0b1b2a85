"""What a group document says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """A Zarr group's metadata.

    Attributes
    ----------
    source : str
        Path or URL, for messages.
    zarr_format : 2 or 3
    attributes : mapping
    consolidated : mapping of str to mapping, or None
        Path below the group -> metadata document of that node (v3 form, or v2 ``.zarray`` with
        its attributes under ``attributes``), where the group carries consolidated metadata.
    """

    source: str
    zarr_format: Literal[2, 3]
    attributes: Mapping[str, Any]
    consolidated: Mapping[str, Mapping[str, Any]] | None = field(default=None)
