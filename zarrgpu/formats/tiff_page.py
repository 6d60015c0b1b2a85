"""One TIFF page as plain, checked values: geometry, sample layout, compression, chunk table.

"Chunk" covers both kinds of TIFF storage: a tile, or a strip of full-width rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from zarrgpu.formats.tiff_ifd import Ifd, ReadRange, read_ifds, read_sub_ifds
from zarrgpu.formats.tiff_tags import RATIONAL_TAGS, TEXT_TAGS, Tag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from zarrgpu.model import ByteRange

PLANES: Final = 2
"""PlanarConfiguration of samples that are stored apart."""

_MAX_SIDE: Final = (1 << 31) - 1
_MAX_SAMPLES: Final = 4096
_WHOLE_IMAGE: Final = (1 << 32) - 1
"""Default of RowsPerStrip: one strip."""

_SMALL_TAGS: Final = (
    *TEXT_TAGS,
    *RATIONAL_TAGS,
    Tag.BitsPerSample,
    Tag.SampleFormat,
    Tag.JPEGTables,
    Tag.ExtraSamples,
    Tag.LercParameters,
    Tag.ColorMap,
    Tag.ModelPixelScale,
    Tag.ModelTiepoint,
    Tag.ModelTransformation,
    Tag.GeoKeyDirectory,
    Tag.GeoDoubleParams,
    Tag.GeoAsciiParams,
    Tag.GdalMetadata,
    Tag.GdalNodata,
    # chunk tables of usual size; large ones are fetched once their size is known to be right
    Tag.StripOffsets,
    Tag.StripByteCounts,
    Tag.TileOffsets,
    Tag.TileByteCounts,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TiffPage:
    """Tags of one image file directory, with the standard's defaults filled in.

    Attributes
    ----------
    source : str
    index : int
        Position in the directory chain, from 0.
    sub_index : int or None
        Position among the SubIFDs of page `index`; None for the page itself.
    byte_order : "<" or ">"
        Of multi-byte samples in uncompressed, deflate, LZW and similar chunks.
    width, height : int
        Pixels.
    image_depth : int
    tiled : bool
    chunk_height, chunk_width : int
        Pixels of a tile, or of a full strip (never more rows than the image has).
    samples : int
        Per pixel.
    bits, sample_format : tuple of int
        One per sample.
    planar_config : int
        1 = samples of a pixel together, 2 = one plane per sample.
    photometric : int or None
    compression, predictor, fill_order, subfile_type : int
    jpeg_tables : bytes
        Tag 347; empty if absent.
    ycbcr_subsampling : tuple of int
        As the tag says, which may be a lie (facts: CMU-1-Small-Region); the stream decides.
    icc_profile : ByteRange or None
        Where the profile is; it is not read with the page.
    text : mapping of str to str
        ASCII tags by name: ``ImageDescription``, ``Software``, ``Make`` ...
    numbers : mapping of str to float
        RATIONAL tags by name: ``XResolution`` ...
    resolution_unit : int
    extra_samples : tuple of int
        What the samples beyond the photometric ones are: 0 unspecified, 1 and 2 alpha.
    lerc_compression : int
        What LERC streams are compressed with again: 0 nothing, 1 deflate, 2 Zstandard.
    offsets, nbytes : int64 arrays
        Chunk table: plane after plane where there are planes, each row-major; ``nbytes`` 0 marks a
        chunk that is not stored.
    ifd : Ifd
        The directory, for tags that only some readers want.
    """

    source: str
    index: int
    sub_index: int | None
    byte_order: Literal["<", ">"]
    width: int
    height: int
    image_depth: int
    tiled: bool
    chunk_height: int
    chunk_width: int
    samples: int
    bits: tuple[int, ...]
    sample_format: tuple[int, ...]
    planar_config: int
    photometric: int | None
    compression: int
    predictor: int
    fill_order: int
    subfile_type: int
    jpeg_tables: bytes
    ycbcr_subsampling: tuple[int, ...]
    icc_profile: ByteRange | None
    text: Mapping[str, str]
    numbers: Mapping[str, float]
    resolution_unit: int
    extra_samples: tuple[int, ...]
    lerc_compression: int
    offsets: NDArray[np.int64]
    nbytes: NDArray[np.int64]
    ifd: Ifd

    @property
    def where(self) -> str:
        """What messages call the page."""
        sub = "" if self.sub_index is None else f", sub-ifd {self.sub_index}"
        return f"ifd {self.index}{sub} of {self.source!r}"

    @property
    def planes(self) -> int:
        """Planes that are stored apart."""
        return self.samples if self.planar_config == PLANES else 1

    @property
    def description(self) -> str:
        """ImageDescription, empty if absent."""
        return self.text.get("ImageDescription", "")

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Chunks down and across."""
        return -(-self.height // self.chunk_height), -(-self.width // self.chunk_width)


def read_tiff(read_range: ReadRange, size: int, *, source: str) -> tuple[TiffPage, ...]:
    """Read the pages of a TIFF or BigTIFF: directories and chunk tables, no image data.

    Parameters
    ----------
    read_range : callable
        ``(offset, nbytes)`` to exactly these bytes, or an error of its own.
    size : int
        Bytes in the file.
    source : str
        Path or URL, for messages.

    Raises
    ------
    MetadataError
        With location ``("ifd", index, tag name)``. A chunk that lies beyond the end of the file is
        no error here: the store refuses it when it is read, the rest of the image is good.
    """
    return tuple(_page(ifd) for ifd in read_ifds(read_range, size, source=source))


def read_sub_pages(page: TiffPage) -> tuple[TiffPage, ...]:
    """Read the pages of a page's SubIFDs tag (330), such as the levels of an OME-TIFF image.

    Raises
    ------
    MetadataError
        As `read_tiff`; the location is ``("ifd", index, "SubIFDs", sub_index, tag name)``.
    """
    return tuple(_page(ifd) for ifd in read_sub_ifds(page.ifd))


def _page(ifd: Ifd) -> TiffPage:
    width = _side(ifd, Tag.ImageWidth)
    height = _side(ifd, Tag.ImageLength)
    tiled = Tag.TileWidth in ifd.fields or Tag.TileOffsets in ifd.fields
    if tiled:
        chunk_width, chunk_height = _side(ifd, Tag.TileWidth), _side(ifd, Tag.TileLength)
    else:
        rows = ifd.integer(Tag.RowsPerStrip, _WHOLE_IMAGE)
        if rows < 1:
            raise ifd.error(Tag.RowsPerStrip, f"expected at least 1, got {rows}")
        chunk_width, chunk_height = width, min(rows, height)
    samples = ifd.integer(Tag.SamplesPerPixel, 1)
    if not 0 < samples <= _MAX_SAMPLES:
        raise ifd.error(Tag.SamplesPerPixel, f"expected 1 to {_MAX_SAMPLES}, got {samples}")
    ifd.prefetch(_SMALL_TAGS, max_nbytes=1 << 20)
    planar_config = ifd.integer(Tag.PlanarConfiguration, 1)
    if planar_config not in (1, PLANES):
        raise ifd.error(Tag.PlanarConfiguration, f"expected 1 or 2, got {planar_config}")
    planes = samples if planar_config == PLANES else 1
    n_chunks = -(-width // chunk_width) * -(-height // chunk_height) * planes
    offsets, nbytes = _chunk_table(ifd, n_chunks, tiled=tiled)
    extra = ifd.integers(Tag.ExtraSamples, max_count=_MAX_SAMPLES)
    lerc = ifd.integers(Tag.LercParameters)
    icc = ifd.fields.get(Tag.InterColorProfile)
    ycbcr = ifd.integers(Tag.YCbCrSubSampling)
    return TiffPage(
        source=ifd.cache.source,
        index=ifd.index,
        sub_index=ifd.sub_index,
        byte_order=ifd.byte_order,
        width=width,
        height=height,
        image_depth=ifd.integer(Tag.ImageDepth, 1),
        tiled=tiled,
        chunk_height=chunk_height,
        chunk_width=chunk_width,
        samples=samples,
        bits=_per_sample(ifd, Tag.BitsPerSample, samples),
        sample_format=_per_sample(ifd, Tag.SampleFormat, samples),
        planar_config=planar_config,
        photometric=_optional(ifd, Tag.PhotometricInterpretation),
        compression=ifd.integer(Tag.Compression, 1),
        predictor=ifd.integer(Tag.Predictor, 1),
        fill_order=ifd.integer(Tag.FillOrder, 1),
        subfile_type=ifd.integer(Tag.NewSubfileType, 0),
        jpeg_tables=ifd.binary(Tag.JPEGTables, max_nbytes=1 << 16),
        ycbcr_subsampling=(2, 2) if ycbcr is None else tuple(ycbcr.tolist()),
        icc_profile=icc.byte_range if icc is not None and icc.count else None,
        text=_named_text(ifd),
        numbers=_named_numbers(ifd),
        resolution_unit=ifd.integer(Tag.ResolutionUnit, 2),
        extra_samples=() if extra is None else tuple(extra.tolist()),
        lerc_compression=0 if lerc is None or lerc.size < 2 else int(lerc[1]),
        offsets=offsets,
        nbytes=nbytes,
        ifd=ifd,
    )


def _side(ifd: Ifd, tag: Tag) -> int:
    value = ifd.integer(tag)
    if not 0 < value <= _MAX_SIDE:
        raise ifd.error(tag, f"expected 1 to {_MAX_SIDE} pixels, got {value}")
    return value


def _optional(ifd: Ifd, tag: Tag) -> int | None:
    return ifd.integer(tag) if tag in ifd.fields else None


def _per_sample(ifd: Ifd, tag: Tag, samples: int) -> tuple[int, ...]:
    """One value per sample; writers that give a single value mean it for all."""
    values = ifd.integers(tag, max_count=_MAX_SAMPLES)
    if values is None:
        return (1,) * samples
    if values.size not in (1, samples):
        raise ifd.error(tag, f"expected {samples} values, one per sample, got {values.size}")
    return tuple(np.broadcast_to(values, samples).tolist())


def _chunk_table(
    ifd: Ifd, n_chunks: int, *, tiled: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets and sizes of all chunks, after their counts were compared with the geometry."""
    tags = (
        (Tag.TileOffsets, Tag.TileByteCounts) if tiled else (Tag.StripOffsets, Tag.StripByteCounts)
    )
    for tag in tags:
        field = ifd.fields.get(tag)
        if field is None:
            raise ifd.error(tag, "required tag is missing", "missing")
        if field.count != n_chunks:
            msg = f"expected {n_chunks} values, one per chunk of the image, got {field.count}"
            raise ifd.error(tag, msg)
    ifd.prefetch(tags, max_nbytes=ifd.cache.size)
    offsets, nbytes = (ifd.integers(tag, max_count=n_chunks) for tag in tags)
    if offsets is None or nbytes is None:  # pragma: no cover - both were found above
        raise ifd.error(tags[0], "required tag is missing", "missing")
    in_header = (offsets < 8) & (nbytes > 0)
    if in_header.any():
        at = int(in_header.argmax())
        msg = f"chunk {at} has {nbytes[at]} bytes at offset {offsets[at]}, inside the file header"
        raise ifd.error(tags[0], msg)
    return offsets, nbytes


def _named_text(ifd: Ifd) -> Mapping[str, str]:
    pairs = ((tag.name, ifd.text(tag)) for tag in TEXT_TAGS)
    return MappingProxyType({name: text for name, text in pairs if text is not None})


def _named_numbers(ifd: Ifd) -> Mapping[str, float]:
    pairs = ((tag.name, ifd.rational(tag)) for tag in RATIONAL_TAGS)
    return MappingProxyType({name: number for name, number in pairs if number is not None})


def page_of(ifd: Ifd) -> TiffPage:
    """Page that a directory describes."""
    return _page(ifd)
