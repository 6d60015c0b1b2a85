"""What a group document says, and what a node may be called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zarrgpu.formats.consolidated import Consolidated

METADATA_NAMES = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
"""Objects beside a group's members that are no members."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """A named dimension that arrays of a group share (netCDF's word; NCZarr states it).

    Attributes
    ----------
    size : int
        Elements.
    unlimited : bool
        Whether writers may append along it.
    """

    size: int
    unlimited: bool = False


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
    dimensions : mapping of str to Dimension
        That NCZarr declares in this group.
    """

    source: str
    zarr_format: Literal[2, 3]
    attributes: Mapping[str, Any]
    consolidated: Consolidated | None = field(default=None)
    dimensions: Mapping[str, Dimension] = field(default_factory=dict)
