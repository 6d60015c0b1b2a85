"""QPTIFF (PerkinElmer, Akoya): one page for each band of each level.

Each page is described by XML (``PerkinElmer-QPI-ImageDescription``) whose ImageType says what it
is: FullResolution, ReducedResolution, Thumbnail, Overview or Label. Bands have a Name and a Color.
Pages without an ImageType are in tifffile's order: the bands of level 0, a thumbnail, the bands of
each coarser level, overview, label.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from zarrgpu.errors import MetadataError, RequestError, UnsupportedFormatError
from zarrgpu.formats.planes import stack_planes
from zarrgpu.formats.slide_properties import (
    associated_properties,
    level_properties,
    mpp_properties,
    number_text,
    parse_number,
    resolution_mpp,
)
from zarrgpu.formats.tiff import page_to_array_spec
from zarrgpu.formats.xml_document import parse_xml, text_of
from zarrgpu.model import ArraySpec
from zarrgpu.slide_model import SlideSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from zarrgpu.formats.tiff_file import TiffFile
    from zarrgpu.formats.tiff_page import TiffPage

_ROOT: Final = "PerkinElmer-QPI"
_BYTE: Final = re.compile("[0-9]{1,3}")
_ASSOCIATED: Final = MappingProxyType(
    {"Thumbnail": "thumbnail", "Overview": "macro", "Label": "label"}
)


def is_qptiff(file: TiffFile) -> bool:
    """Whether a TIFF is a QPTIFF."""
    first = file.first
    return _ROOT in first.description[:1024] or first.text.get("Software", "").startswith(_ROOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Band:
    """A page and what its XML says."""

    page: TiffPage
    kind: str
    name: str | None
    color: str | None
    objective: str | None

    @property
    def size(self) -> tuple[int, int]:
        return self.page.height, self.page.width


def qptiff_slide(file: TiffFile) -> SlideSpec:
    """Describe a QPTIFF; levels have axes ``(c, y, x)``, or ``(y, x, c)`` where a page has colours.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        Levels of different bands, pages that zarrgpu does not read.
    MetadataError
        The XML is damaged.
    """
    first_size = (file.first.height, file.first.width)
    bands = [_band(page, first_size) for page in file.pages]
    full = [band for band in bands if band.kind == "FullResolution"]
    reduced = [band for band in bands if band.kind == "ReducedResolution"]
    if not full:
        raise UnsupportedFormatError(f"{file.source!r}: QPTIFF without a page of full resolution")
    by_size: dict[tuple[int, int], list[_Band]] = {}
    for band in reduced:
        by_size.setdefault(band.size, []).append(band)
    groups = [full, *(by_size[size] for size in sorted(by_size, reverse=True))]
    levels = tuple(_level(file, group, index, len(full)) for index, group in enumerate(groups))
    y = levels[0].dimension_names.index("y")
    mpp = resolution_mpp(full[0].page)
    associated, said = _associated(file, bands)
    properties = {
        "openslide.vendor": "qptiff",
        **level_properties(levels, y),
        **mpp_properties(mpp),
        **said,
        **{
            f"qptiff.band[{index}].name": band.name
            for index, band in enumerate(full)
            if band.name is not None
        },
    }
    power = parse_number((full[0].objective or "").lower().rstrip("x "))
    if power is not None:
        properties["openslide.objective-power"] = number_text(power)
    return SlideSpec(
        source=file.source,
        vendor="qptiff",
        levels=levels,
        axes=tuple(str(name) for name in levels[0].dimension_names),
        mpp=mpp,
        properties=properties,
        associated=associated,
        channels=tuple(_channel(band) for band in full) if len(full) > 1 else (),
    )


def _band(page: TiffPage, first_size: tuple[int, int]) -> _Band:
    """What a page is, by its XML or else by its size."""
    kind = "Other"
    if page.tiled or page.index == 0:
        same = (page.height, page.width) == first_size
        kind = "FullResolution" if same else "ReducedResolution"
    name = color = objective = None
    if "<" in page.description:
        where = ("ifd", page.index, "ImageDescription")
        root = parse_xml(page.description, source=page.source, location=where)
        kind = text_of(root, "ImageType") or kind
        name, color = text_of(root, "Name"), text_of(root, "Color")
        objective = text_of(root, "Objective")
    return _Band(page=page, kind=kind, name=name, color=color, objective=objective)


def _level(file: TiffFile, bands: Sequence[_Band], index: int, count: int) -> ArraySpec:
    what = f"level {index}"
    if len(bands) != count:
        msg = f"{file.source!r}: {what} has {len(bands)} bands of {bands[0].size}, level 0 {count}"
        raise UnsupportedFormatError(msg)
    specs = [page_to_array_spec(band.page, key=file.key, image=what) for band in bands]
    return stack_planes(specs, (("c", count),) if count > 1 else (), what=what)


def _associated(
    file: TiffFile, bands: Sequence[_Band]
) -> tuple[dict[str, ArraySpec], dict[str, str]]:
    found: dict[str, ArraySpec] = {}
    said: dict[str, str] = {}
    for band in bands:
        name = _ASSOCIATED.get(band.kind)
        if name is None or name in found:
            continue
        try:
            found[name] = page_to_array_spec(band.page, key=file.key, image=name)
        except (RequestError, MetadataError) as error:
            said[f"zarrgpu.associated.{name}.unsupported"] = str(error)
        else:
            said |= associated_properties(name, band.page, 0)
    return found, said


def _channel(band: _Band) -> dict[str, Any]:
    """Name and colour as OME-Zarr has them."""
    found: dict[str, Any] = {} if band.name is None else {"label": band.name}
    parts = (band.color or "").split(",")
    if len(parts) == 3 and all(_BYTE.fullmatch(p.strip()) and int(p) < 256 for p in parts):
        found["color"] = "".join(f"{int(part):02X}" for part in parts)
    return found
