"""A DICOM series as a slide: which files are levels, label, macro image and thumbnail.

Facts from OpenSlide's reader (openslide-vendor-dicom.c): the files of a slide are those of one
SeriesInstanceUID in a folder; the third value of ImageType says what an image is; levels are sorted
by width; pixel spacing is (row, column) in millimetres; properties are the elements of the finest
level under their keywords.

OpenSlide's values are given for all properties, ``quickhash-1`` included. Where an image of another
kind (``LOCALIZER`` ...) is in the series, it is ignored, as there.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from zarrgpu.errors import RequestError, UnsupportedFormatError
from zarrgpu.formats.dicom_image import DicomImage
from zarrgpu.formats.dicom_syntaxes import WHOLE_SLIDE, class_name
from zarrgpu.formats.dicom_values import decimal, properties
from zarrgpu.formats.slide_properties import level_properties, number_text
from zarrgpu.model import ByteRange, StoredBytes
from zarrgpu.slide_model import SlideSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zarrgpu.formats.dicom_file import DicomFile
    from zarrgpu.model import ArraySpec

_MEDIA_STORAGE_CLASS: Final = 0x00020002
_IMAGE_TYPE, _INSTANCE, _SOURCE_INSTANCE = 0x00080008, 0x00080018, 0x00200242
_PYRAMID: Final = 0x00080019
_SHARED, _MEASURES, _SPACING = 0x52009229, 0x00289110, 0x00280030
_PATHS, _PROFILE, _POWER = 0x00480105, 0x00282000, 0x00480112

_ASSOCIATED: Final[Mapping[str, str]] = {
    "LABEL": "label",
    "OVERVIEW": "macro",
    "THUMBNAIL": "thumbnail",
}
_MICROMETRES: Final = 1000.0


def storage_class(file: DicomFile) -> str:
    """SOP class that the file meta information states."""
    return file.meta.text(_MEDIA_STORAGE_CLASS)


def check_class(file: DicomFile) -> None:
    """Refuse what is no whole-slide image, by the name of what it is."""
    uid = storage_class(file)
    if uid != WHOLE_SLIDE:
        msg = (
            f"{file.source!r} is a DICOM {class_name(uid)} (SOP class {uid or 'not stated'}); of "
            "DICOM, whole-slide microscopy images are read"
        )
        raise UnsupportedFormatError(msg)


def dicom_slide(files: Sequence[DicomFile], *, source: str) -> SlideSpec:
    """Describe the slide whose images are in `files`, all of one series.

    Levels have axes ``(y, x, c)``, or as `DicomImage.array_spec` says. An associated image that
    zarrgpu cannot decode is left out, and the property
    ``zarrgpu.associated.<name>.unsupported`` says why.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        By name: what a level has that zarrgpu does not read.
    MetadataError
        A file is damaged, or files contradict one another.
    """
    groups = _by_image(files)
    levels = [DicomImage(group) for name, group in groups if name == "level"]
    if not levels:
        msg = f"{source!r}: no file of the series is a level of a slide (ImageType VOLUME)"
        raise UnsupportedFormatError(msg)
    levels.sort(key=lambda level: -level.grid.width)
    _check_pyramid(levels)
    specs = tuple(level.array_spec(f"level {index}") for index, level in enumerate(levels))
    _check_alike(specs)
    associated, said = _associated([(name, group) for name, group in groups if name != "level"])
    first = levels[0].first
    profile = _icc_profile(first)
    mpp_y, mpp_x = _spacing(first)
    names = {**dict(properties(first.meta.elements)), **dict(properties(first.attributes.elements))}
    axes = tuple(name or "" for name in specs[0].dimension_names)
    names |= {
        "openslide.vendor": "dicom",
        **level_properties(specs, axes.index("y")),
        **_scale_properties(first, mpp_x, mpp_y),
        "openslide.quickhash-1": hashlib.sha256(first.series_uid.encode() + b"\0").hexdigest(),
        **said,
    }
    if profile is not None:
        names["openslide.icc-size"] = str(len(profile))
    return SlideSpec(
        source=source,
        vendor="dicom",
        levels=specs,
        axes=axes,
        mpp=(mpp_x, mpp_y),
        properties=names,
        associated=associated,
        icc_profile=profile,
        channels=_channels(levels[0]),
    )


def _by_image(files: Sequence[DicomFile]) -> list[tuple[str, list[DicomFile]]]:
    """Files by what they show; parts of one image together, copies of a file once."""
    groups: dict[tuple[str, str], dict[str, DicomFile]] = {}
    for file in files:
        kinds = file.attributes.texts(_IMAGE_TYPE)
        if len(kinds) < 3:
            message = f"expected at least 3 values, got {len(kinds)}"
            raise file.attributes.fail(_IMAGE_TYPE, message)
        name = "level" if kinds[2] == "VOLUME" else _ASSOCIATED.get(kinds[2])
        if name is None:
            continue
        uid = file.attributes.required_text(_INSTANCE)
        image = file.attributes.text(_SOURCE_INSTANCE) or uid
        groups.setdefault((name, image), {}).setdefault(uid, file)
    return [(name, list(group.values())) for (name, _), group in groups.items()]


def _check_pyramid(levels: Sequence[DicomImage]) -> None:
    """Levels must be of one pyramid, and of different sizes."""
    pyramids: dict[str, DicomImage] = {}
    for level in levels:
        uid = level.first.attributes.text(_PYRAMID)
        if uid:
            pyramids.setdefault(uid, level)
    if len(pyramids) > 1:
        one, other = list(pyramids.values())[:2]
        msg = (
            f"{one.source!r} and {other.source!r} are of one series, but of two pyramids "
            "(PyramidUID), which is not read; put them in different folders"
        )
        raise UnsupportedFormatError(msg)
    sizes: dict[tuple[int, int], DicomImage] = {}
    for level in levels:
        size = (level.grid.width, level.grid.height)
        if size in sizes:
            msg = (
                f"{sizes[size].source!r} and {level.source!r} are two images of {size[0]} x "
                f"{size[1]} pixels in one series, which is not read: optical paths and focal "
                "planes of one level must be in one file or concatenation"
            )
            raise UnsupportedFormatError(msg)
        sizes[size] = level


def _check_alike(specs: Sequence[ArraySpec]) -> None:
    """All levels must have the same axes, type and channels."""
    first = specs[0]
    y = first.dimension_names.index("y")
    for spec in specs[1:]:
        alike = (spec.dimension_names, spec.dtype.newbyteorder("=")) == (
            first.dimension_names,
            first.dtype.newbyteorder("="),
        )
        if not alike or (spec.shape[:y], spec.shape[y + 2 :]) != (
            first.shape[:y],
            first.shape[y + 2 :],
        ):
            msg = (
                f"{spec.source!r}: a level of {spec.shape} {spec.dtype} below one of {first.shape} "
                f"{first.dtype} ({first.source!r}): optical paths, planes or samples differ"
            )
            raise UnsupportedFormatError(msg)


def _associated(
    groups: Sequence[tuple[str, list[DicomFile]]],
) -> tuple[dict[str, ArraySpec], dict[str, str]]:
    found: dict[str, ArraySpec] = {}
    said: dict[str, str] = {}
    for name, group in groups:
        if name in found:
            msg = (
                f"{found[name].source!r} and {group[0].source!r} are two different images of kind "
                f"{name!r} in one series, which is not read"
            )
            raise UnsupportedFormatError(msg)
        try:
            image = DicomImage(group)
            spec = image.array_spec(name)
            if spec.dimension_names != ("y", "x", "c"):
                msg = f"{image.source!r}: several optical paths or focal planes"
                raise UnsupportedFormatError(msg)
        except RequestError as error:
            said[f"zarrgpu.associated.{name}.unsupported"] = str(error)
            continue
        profile = _icc_profile(image.first)
        found[name] = replace(spec, icc_profile=profile)
        prefix = f"openslide.associated.{name}"
        said |= {f"{prefix}.width": str(spec.shape[1]), f"{prefix}.height": str(spec.shape[0])}
        if profile is not None:
            said[f"{prefix}.icc-size"] = str(len(profile))
    return found, said


def _icc_profile(file: DicomFile) -> StoredBytes | None:
    """Colour profile of the first optical path."""
    path = next(iter(file.attributes.items(_PATHS)), None)
    element = None if path is None else path.elements.get(_PROFILE)
    if element is None or not element.nbytes:
        return None
    return StoredBytes(key=file.key, byte_range=ByteRange(element.offset, element.nbytes))


def _spacing(file: DicomFile) -> tuple[float | None, float | None]:
    """Micrometres per pixel between rows (y) and between columns (x)."""
    shared = next(iter(file.attributes.items(_SHARED)), None)
    measures = None if shared is None else next(iter(shared.items(_MEASURES)), None)
    texts = [] if measures is None else measures.texts(_SPACING)
    values = [decimal(text) for text in texts[:2]]
    usable = [None if v is None or v <= 0 else v * _MICROMETRES for v in values]
    return (usable[0], usable[1]) if len(usable) == 2 else (None, None)


def _scale_properties(file: DicomFile, x: float | None, y: float | None) -> dict[str, str]:
    path = next(iter(file.attributes.items(_PATHS)), None)
    values = {
        "openslide.mpp-x": x,
        "openslide.mpp-y": y,
        "openslide.objective-power": None if path is None else decimal(path.text(_POWER)),
    }
    return {name: number_text(value) for name, value in values.items() if value is not None}


def _channels(level: DicomImage) -> tuple[Mapping[str, Any], ...]:
    """Labels of optical paths, where there are several."""
    names = level.grid.path_names
    return tuple({"label": name} for name in names) if len(names) > 1 else ()
