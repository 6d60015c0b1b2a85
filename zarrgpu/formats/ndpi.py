"""Hamamatsu NDPI: a directory per level, each with one JPEG for the whole level.

Facts from OpenSlide's reader (openslide-vendor-hamamatsu.c) and tifffile's:

- SourceLens (65421) is the magnification of a level, -1 for the macro image, -2 for the map of
  what was scanned; the levels of focal plane 0 (65424) come in order of size;
- McuStarts (65426, upper halves in 65432) is where each restart interval begins, from the start of
  the JPEG; a file may lack it, then the markers are searched for;
- the header of a JPEG larger than 65,500 pixels states 0 or nonsense;
- levels of JPEG XR are tiled; where CaptureMode (65441) is above 5 their tags are wrong, and each
  has one sample of 16 bits.

Levels are those that are stored. OpenSlide shows more between them, which libjpeg makes by decoding
at an eighth to a half of the size. Other focal planes are left out, as in OpenSlide.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from zarrgpu.errors import DataError, MetadataError, RequestError, UnsupportedFormatError
from zarrgpu.formats.ndpi_ifd import NdpiDirectory, read_directories, read_first
from zarrgpu.formats.ndpi_intervals import interval_manifest
from zarrgpu.formats.ndpi_jpeg import MAX_SIDE, LevelJpeg, chunk_intervals, read_level_jpeg
from zarrgpu.formats.quickhash import quickhash_of
from zarrgpu.formats.slide_properties import level_properties, number_text
from zarrgpu.formats.tiff_page import page_of
from zarrgpu.formats.tiff_tags import (
    COMPRESSION_NAMES,
    RATIONAL_TAGS,
    RESOLUTION_UNITS,
    TEXT_TAGS,
    Tag,
)
from zarrgpu.model import MISSING_NBYTES, ArraySpec, CodecSpec, Manifest
from zarrgpu.slide_model import Quickhash, SlideSpec

if TYPE_CHECKING:
    from zarrgpu.formats.tiff_file import TiffFile

_ASSOCIATED: Final = {-1: "macro", -2: "map"}
_JPEG: Final = 7
_JPEG_XR: Final = 22610
_LAST_8_BIT_MODE: Final = 5
_UINT8: Final = np.dtype(np.uint8)
_MAX_WHOLE_NBYTES: Final = 1 << 28
"""Of a level that cannot be read in parts."""
_CENTIMETRE: Final = 3
_UM_PER_CM: Final = 10_000.0
_MAX_PIXELS: Final = (1 << 31) - 1


def is_ndpi(file: TiffFile) -> bool:
    """Whether a TIFF is an NDPI slide."""
    return read_first(file) is not None


def ndpi_slide(file: TiffFile) -> SlideSpec:
    """Describe an NDPI slide.

    Levels have axes ``(y, x, c)``. Properties are those of OpenSlide by name and value;
    ``zarrgpu.ignored-focal-planes`` lists focal planes that are not shown.

    Raises
    ------
    UnsupportedFormatError
        JPEG XR, more than 8 bits, a JPEG that cannot be taken apart, several channels; by name.
    MetadataError
        Tags contradict one another, the JPEG or the file.
    """
    directories = read_directories(file)
    if not directories:
        raise UnsupportedFormatError(f"{file.source!r} is not an NDPI slide")
    levels: list[ArraySpec] = []
    associated: dict[str, ArraySpec] = {}
    properties: dict[str, str] = {}
    planes: set[int] = set()
    smallest = directories[0]
    for directory in directories:
        lens = directory.number(Tag.NdpiSourceLens)
        if lens is None:
            raise directory.ifd.error(Tag.NdpiSourceLens, "required tag is missing", "missing")
        if lens > 0:
            plane = int(directory.number(Tag.NdpiFocalPlane) or 0)
            if plane:
                planes.add(plane)
                continue
            levels.append(_level(file, directory, levels))
            smallest = directory
        elif lens in _ASSOCIATED and _ASSOCIATED[int(lens)] not in associated:
            name = _ASSOCIATED[int(lens)]
            try:
                associated[name] = _whole_image(file, directory, name)
            except (RequestError, DataError) as error:
                properties[f"zarrgpu.associated.{name}.unsupported"] = str(error)
    if not levels:
        raise MetadataError("no directory holds a level", source=file.source, kind="missing")
    if planes:
        properties["zarrgpu.ignored-focal-planes"] = ", ".join(map(str, sorted(planes)))
    mpp = _mpp(directories[0])
    return SlideSpec(
        source=file.source,
        vendor="hamamatsu",
        levels=tuple(levels),
        axes=("y", "x", "c"),
        mpp=mpp,
        properties={
            **_properties(directories[0], mpp),
            **level_properties(levels),
            **{
                f"openslide.associated.{name}.{side}": str(image.shape[axis])
                for name, image in associated.items()
                for axis, side in enumerate(("height", "width"))
            },
            **properties,
        },
        associated=associated,
        quickhash=_quickhash(file, smallest, directories[0]),
    )


def _level(file: TiffFile, directory: NdpiDirectory, before: list[ArraySpec]) -> ArraySpec:
    """Describe one level, smaller than those before it."""
    name = f"level {len(before)}"
    height, width = _size(directory)
    if before and width >= before[-1].shape[1]:
        msg = (
            f"{name}, ifd {directory.ifd.index} of {file.source!r}: {width} pixels wide, the level "
            f"before has {before[-1].shape[1]}; slides of several channels or in another order are "
            "not read"
        )
        raise UnsupportedFormatError(msg)
    if Tag.TileOffsets in directory.ifd.fields:
        return _tiled_level(file, directory, name)
    start, nbytes, jpeg = _strip(file, directory, name)
    _check_jpeg(jpeg, directory, (height, width), name, file.source)
    if not jpeg.interval:
        return _whole_array(file, directory, name, (height, width), (start, nbytes, jpeg))
    across = _intervals_across(jpeg, width, name, file.source)
    tile = (jpeg.mcu_height, jpeg.mcu_width * jpeg.interval)
    down = -(-height // tile[0])
    rows, columns = chunk_intervals(tile[1], tile[0], across, down, jpeg.samples)
    configuration: dict[str, Any] = {
        "header": jpeg.header(tile[1], tile[0]),
        "height": tile[0],
        "width": tile[1],
        "samples": jpeg.samples,
        "colorspace": jpeg.colorspace,
        "down": rows,
        "across": columns,
    }
    if down % rows:
        configuration["short_down"] = down % rows
    manifest = interval_manifest(
        file, directory, (start, nbytes, jpeg.data_offset), (down, across), (rows, columns), name
    )
    codec = CodecSpec("restart_jpeg", configuration)
    chunk = (rows * tile[0], columns * tile[1], jpeg.samples)
    return _array(directory, name, (height, width, jpeg.samples), chunk, codec, manifest)


def _tiled_level(file: TiffFile, directory: NdpiDirectory, name: str) -> ArraySpec:
    """Describe a level of JPEG XR tiles."""
    page = page_of(directory.ifd)
    if page.compression != _JPEG_XR:
        known = COMPRESSION_NAMES.get(page.compression, "unknown")
        msg = f"{name}, {page.where}: NDPI tiles with compression {page.compression} ({known}) "
        raise UnsupportedFormatError(msg + "are not read, only JPEG XR is")
    samples, bits = page.samples, page.bits[0]
    if (directory.number(Tag.NdpiCaptureMode) or 0) > _LAST_8_BIT_MODE:
        samples, bits = 1, 16
    if samples not in (1, 3) or bits not in (8, 16) or page.planes > 1:
        msg = f"{name}, {page.where}: {samples} samples of {bits} bits are not read"
        raise UnsupportedFormatError(msg)
    offsets = page.offsets
    high = directory.ifd.integers(Tag.NdpiOffsetsHigh, max_count=len(offsets))
    if high is not None and high.shape == offsets.shape:
        offsets = offsets + (high << 32)
    dtype = np.dtype(f"u{bits // 8}")
    chunk_shape = (page.chunk_height, page.chunk_width, samples)
    options = {"codec": "jpegxr", "options": {}, "dtype": dtype.str, "shape": list(chunk_shape)}
    nbytes = np.where(page.nbytes == 0, np.int64(MISSING_NBYTES), page.nbytes)
    return _array(
        directory,
        name,
        (page.height, page.width, samples),
        chunk_shape,
        CodecSpec("imagecodecs_jpegxr", options),
        Manifest(key=file.key, offsets=offsets, nbytes=nbytes),
        dtype,
    )


def _size(directory: NdpiDirectory) -> tuple[int, int]:
    """Height and width of an image, which is one strip."""
    ifd = directory.ifd
    sides = []
    for tag in (Tag.ImageLength, Tag.ImageWidth):
        side = ifd.integer(tag)
        if not 0 < side <= _MAX_PIXELS:
            raise ifd.error(tag, f"expected 1 to {_MAX_PIXELS} pixels, got {side}")
        sides.append(side)
    rows = ifd.integer(Tag.RowsPerStrip, sides[0])
    if rows != sides[0]:
        msg = f"expected one strip of {sides[0]} rows, got strips of {rows}"
        raise ifd.error(Tag.RowsPerStrip, msg)
    return sides[0], sides[1]


def _strip(file: TiffFile, directory: NdpiDirectory, name: str) -> tuple[int, int, LevelJpeg]:
    """Offset and size of the strip of an image, and the header of the JPEG in it."""
    ifd, what = directory.ifd, f"{name}, ifd {directory.ifd.index}"
    compression = ifd.integer(Tag.Compression, _JPEG)
    if compression != _JPEG:
        known = COMPRESSION_NAMES.get(compression, "unknown")
        msg = f"{what} of {file.source!r}: NDPI with compression {compression} ({known}) "
        raise UnsupportedFormatError(msg + "in a strip is not read, only JPEG is")
    start = directory.large_integer(Tag.StripOffsets)
    nbytes = directory.large_integer(Tag.StripByteCounts)
    if not 8 <= start < file.size:
        msg = f"JPEG at offset {start} of a file of {file.size} bytes; it is damaged or cut off"
        raise ifd.error(Tag.StripOffsets, msg)
    read = partial(_read_behind, file, start, what)
    room = min(nbytes, file.size - start)
    return start, nbytes, read_level_jpeg(read, room, what=what, source=file.source)


def _read_behind(file: TiffFile, start: int, what: str, offset: int, nbytes: int) -> bytes:
    return file.read(start + offset, nbytes, what)


def _check_jpeg(
    jpeg: LevelJpeg, directory: NdpiDirectory, size: tuple[int, int], name: str, source: str
) -> None:
    """Refuse a JPEG that is not the one that the tags describe."""
    if jpeg.precision != 8:
        msg = f"{name} of {source!r}: JPEG of {jpeg.precision} bits per sample is not read"
        raise UnsupportedFormatError(msg)
    if max(size) <= MAX_SIDE and (jpeg.height, jpeg.width) != size:
        msg = f"{name} is {size[1]} x {size[0]}, its JPEG {jpeg.width} x {jpeg.height}"
        raise directory.ifd.error(Tag.ImageWidth, msg)


def _intervals_across(jpeg: LevelJpeg, width: int, name: str, source: str) -> int:
    """Restart intervals in a row of MCUs."""
    mcus = -(-width // jpeg.mcu_width)
    if mcus % jpeg.interval:
        msg = (
            f"{name} of {source!r}: {mcus} MCUs in a row, restart intervals of {jpeg.interval}: "
            "intervals that go over from row to row are not read"
        )
        raise UnsupportedFormatError(msg)
    if not jpeg.sequential or jpeg.interval * jpeg.mcu_width > MAX_SIDE:
        msg = f"{name} of {source!r}: only baseline JPEG in one scan can be read in parts"
        raise UnsupportedFormatError(msg)
    return mcus // jpeg.interval


def _whole_image(file: TiffFile, directory: NdpiDirectory, name: str) -> ArraySpec:
    """Describe an associated image."""
    size = _size(directory)
    strip = _strip(file, directory, name)
    _check_jpeg(strip[2], directory, size, name, file.source)
    return _whole_array(file, directory, name, size, strip)


def _whole_array(
    file: TiffFile,
    directory: NdpiDirectory,
    name: str,
    size: tuple[int, int],
    strip: tuple[int, int, LevelJpeg],
) -> ArraySpec:
    """One chunk: a JPEG without restart intervals, or a small one."""
    start, nbytes, jpeg = strip
    shape = (*size, jpeg.samples)
    if size[0] * size[1] * jpeg.samples > _MAX_WHOLE_NBYTES or max(size) > MAX_SIDE:
        msg = (
            f"{name} of {file.source!r}: {size[1]} x {size[0]} pixels in one JPEG without restart "
            "intervals, too many to decode at once"
        )
        raise UnsupportedFormatError(msg)
    configuration = {
        "height": size[0],
        "width": size[1],
        "samples": jpeg.samples,
        "colorspace": jpeg.colorspace,
    }
    manifest = Manifest(file.key, np.array([start], np.int64), np.array([nbytes], np.int64))
    return _array(directory, name, shape, shape, CodecSpec("jpeg", configuration), manifest)


def _array(
    directory: NdpiDirectory,
    name: str,
    shape: tuple[int, int, int],
    chunk_shape: tuple[int, int, int],
    codec: CodecSpec,
    manifest: Manifest,
    dtype: np.dtype[Any] = _UINT8,
) -> ArraySpec:
    return ArraySpec(
        source=directory.ifd.cache.source,
        shape=shape,
        dtype=dtype,
        chunk_shape=chunk_shape,
        fill_value=0,
        codecs=(codec,),
        axis_order=(0, 1, 2),
        location=manifest,
        dimension_names=("y", "x", "c"),
        attributes={"tiff_ifd": directory.ifd.index, "image": name},
    )


def _quickhash(file: TiffFile, smallest: NdpiDirectory, first: NdpiDirectory) -> Quickhash | None:
    """Of the smallest level's one JPEG; a level of tiles, which no scanner writes, has none."""
    if Tag.TileOffsets in smallest.ifd.fields:
        return None
    tags = (Tag.StripOffsets, Tag.StripByteCounts)
    offset, nbytes = (np.array([smallest.large_integer(tag)], np.int64) for tag in tags)
    return quickhash_of(file.key, offset, nbytes, first.ifd)


def _mpp(first: NdpiDirectory) -> tuple[float | None, float | None]:
    """Micrometres per pixel; only resolutions in centimetres are believed, as in OpenSlide."""
    if first.ifd.integer(Tag.ResolutionUnit, 2) != _CENTIMETRE:
        return None, None
    per_cm = [first.ifd.rational(tag) for tag in (Tag.XResolution, Tag.YResolution)]
    x, y = (_UM_PER_CM / value if value else None for value in per_cm)
    return x, y


def _properties(first: NdpiDirectory, mpp: tuple[float | None, float | None]) -> dict[str, str]:
    ifd = first.ifd
    properties = {"openslide.vendor": "hamamatsu"}
    texts = {tag.name: ifd.text(tag) for tag in TEXT_TAGS}
    numbers = {tag.name: ifd.rational(tag) for tag in RATIONAL_TAGS}
    properties |= {f"tiff.{name}": text for name, text in texts.items() if text is not None}
    properties |= {f"tiff.{k}": number_text(v) for k, v in numbers.items() if v is not None}
    unit = ifd.integer(Tag.ResolutionUnit, 2)
    properties["tiff.ResolutionUnit"] = RESOLUTION_UNITS.get(unit, "unknown")
    comment = texts["ImageDescription"]
    if comment is not None:
        properties["openslide.comment"] = comment
    for axis, value in zip("xy", mpp, strict=True):
        if value is not None:
            properties[f"openslide.mpp-{axis}"] = number_text(value)
    lens = first.number(Tag.NdpiSourceLens)
    if lens is not None:
        properties["hamamatsu.SourceLens"] = number_text(lens)
        properties["openslide.objective-power"] = number_text(lens)
    for name, tag in (("X", Tag.NdpiXOffset), ("Y", Tag.NdpiYOffset)):
        offset = first.number(tag)
        if offset is not None:
            properties[f"hamamatsu.{name}OffsetFromSlideCentre"] = str(int(offset))
    reference = ifd.text(Tag.NdpiReference)
    if reference is not None:
        properties["hamamatsu.Reference"] = reference
    return properties | _property_map(ifd.text(Tag.NdpiPropertyMap) or "")


def _property_map(text: str) -> dict[str, str]:
    """Lines ``key=value`` of tag 65449."""
    pairs = (line.partition("=") for line in text.split("\r\n"))
    return {f"hamamatsu.{key}": value for key, _, value in pairs if key and value}
