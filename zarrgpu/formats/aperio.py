"""Aperio SVS: which pages of a TIFF are levels, which are label, macro and thumbnail, what is said.

Facts from OpenSlide's reader (openslide-vendor-aperio.c) and measured files, facts/slides.md:

- an Aperio slide is a TIFF whose page 0 is tiled and described by text that starts with "Aperio";
- levels are the tiled pages in file order; the stripped pages are the thumbnail (page 1), the label
  (NewSubfileType 1) and the macro image (9);
- the description is ``header|key = value|...``, numbers possibly with a decimal comma;
- a tile of zero bytes was lost by the scanner, and is made from the level before (`missing_tiles`);
  at level 0 it reads as 0, where OpenSlide gives transparent black.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from zarrgpu.errors import MetadataError, RequestError, UnsupportedFormatError
from zarrgpu.formats.missing_tiles import substitute_missing_tiles
from zarrgpu.formats.quickhash import tiff_quickhash
from zarrgpu.formats.slide_properties import (
    associated_properties,
    level_properties,
    parse_number,
    scale_properties,
    tiff_properties,
)
from zarrgpu.formats.tiff import page_to_array_spec, stored_profile
from zarrgpu.slide_model import SlideSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zarrgpu.formats.tiff_file import TiffFile
    from zarrgpu.formats.tiff_page import TiffPage

_SUBFILE_NAMES: Final = MappingProxyType({1: "label", 9: "macro"})


def is_aperio(file: TiffFile) -> bool:
    """Whether a TIFF is an Aperio slide."""
    return file.first.tiled and file.first.description.startswith("Aperio")


def aperio_slide(file: TiffFile) -> SlideSpec:
    """Describe an Aperio slide; see `aperio_like_slide`."""
    described = parse_description(file.first.description)
    return aperio_like_slide(
        file,
        "aperio",
        described,
        mpp=parse_number(described.get("MPP")),
        objective_power=parse_number(described.get("AppMag")),
    )


def aperio_like_slide(
    file: TiffFile,
    vendor: str,
    described: Mapping[str, str],
    *,
    mpp: float | None,
    objective_power: float | None,
) -> SlideSpec:
    """Describe a slide whose pages are laid out as Aperio does it.

    Parameters
    ----------
    file : TiffFile
    vendor : str
        Also the prefix of its properties.
    described : mapping of str to str
        What the description of page 0 says.
    mpp, objective_power : float or None

    Levels have axes ``(y, x, c)``. Properties are those of OpenSlide by name and value. An
    associated image that zarrgpu cannot decode is left out, and the property
    ``zarrgpu.associated.<name>.unsupported`` says why.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        A level uses what zarrgpu does not read; ImageDepth is not 1.
    MetadataError
        Tags contradict one another or leave the file.
    """
    pages, first, key = file.pages, file.first, file.key
    for page in pages:
        if page.image_depth != 1:
            msg = f"ifd {page.index} of {page.source!r}: ImageDepth {page.image_depth}, expected 1"
            raise UnsupportedFormatError(msg)
    tiled = [page for page in pages if page.tiled]
    levels = [page_to_array_spec(p, key=key, image=f"level {i}") for i, p in enumerate(tiled)]
    levels = list(substitute_missing_tiles(levels))
    associated, problems = _associated(pages, key)
    icc_profile = stored_profile(first, key)
    properties = {
        "openslide.vendor": vendor,
        **tiff_properties(first),
        **level_properties(levels),
        **{f"{vendor}.{name}": value for name, value in described.items()},
        **scale_properties(mpp, objective_power),
        **problems,
    }
    if icc_profile:
        properties["openslide.icc-size"] = str(len(icc_profile))
    for name, page in associated.items():
        profile = _profile_page(name, page, first).icc_profile
        properties |= associated_properties(name, page, profile.nbytes if profile else 0)
    usable_mpp = mpp if mpp is not None and mpp > 0 else None
    return SlideSpec(
        source=first.source,
        vendor=vendor,
        levels=tuple(levels),
        axes=("y", "x", "c"),
        mpp=(usable_mpp, usable_mpp),
        properties=properties,
        associated={
            name: replace(
                page_to_array_spec(page, key=key, image=name),
                icc_profile=stored_profile(_profile_page(name, page, first), key),
            )
            for name, page in associated.items()
        },
        icc_profile=icc_profile,
        quickhash=tiff_quickhash(key, tiled[-1], first),
    )


def parse_description(description: str) -> dict[str, str]:
    """Keys and values of an Aperio ImageDescription; parts without ``=`` are no keys.

    >>> parse_description("Aperio Image Library v1|AppMag = 20|MPP = 0,4990|odd")
    {'AppMag': '20', 'MPP': '0,4990'}
    """
    pairs = (part.partition("=") for part in description.split("|")[1:])
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def _profile_page(name: str, page: TiffPage, first: TiffPage) -> TiffPage:
    """Page with an associated image's profile; a thumbnail that names the slide's own has that."""
    if page.icc_profile is None and name == "thumbnail":
        profile_name = parse_description(page.description).get("ICC Profile")
        same = parse_description(first.description).get("ICC Profile") == profile_name
        page = first if same and profile_name is not None else page
    return page


def _associated(pages: Sequence[TiffPage], key: str) -> tuple[dict[str, TiffPage], dict[str, str]]:
    """Find the stripped pages by name, and a property for each that cannot be decoded."""
    found: dict[str, TiffPage] = {}
    problems: dict[str, str] = {}
    for page in pages:
        name = None if page.tiled else _associated_name(page)
        if name is None or name in found:
            continue
        try:
            page_to_array_spec(page, key=key)
        except (RequestError, MetadataError) as error:
            problems[f"zarrgpu.associated.{name}.unsupported"] = str(error)
        else:
            found[name] = page
    return found, problems


def _associated_name(page: TiffPage) -> str | None:
    """Name by position, by subfile type, else by the second line of the description."""
    if page.index == 1:
        return "thumbnail"
    if page.subfile_type in _SUBFILE_NAMES:
        return _SUBFILE_NAMES[page.subfile_type]
    lines = page.description.splitlines()
    word = lines[1].split(" ")[0] if len(lines) > 1 else ""
    return word if word in _SUBFILE_NAMES.values() else None
