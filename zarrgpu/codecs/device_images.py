"""Images on a device: a library decodes planes, kernels of ours make the pixels of them.

The library gives components as they are stored, in planes; what they mean comes from the codec's
configuration, never from the stream. `ycbcr` then repeats what the host's libraries compute. Where
streams are checked, and how much nvJPEG's status of a whole batch is worth, see
`codecs.jpeg_headers` and kernels/ycbcr.cu.

The results of lossless streams are the host's bytes. Those of lossy ones may differ, as libjpeg's
"islow" inverse DCT and nvJPEG's round differently: `TOLERANCE` states by how much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from zarrgpu.codecs.device_steps import DECODED, FETCHED, STREAMS, DecodeTables, Int64s
from zarrgpu.codecs.jpeg2k_headers import CodestreamHeaders, parse_codestreams
from zarrgpu.codecs.jpeg_headers import JpegHeaders, parse_headers, parse_tables
from zarrgpu.devices.requests import ImageFormat
from zarrgpu.devices.tables import ImageColor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zarrgpu.codecs.base import Codec

TOLERANCE: Final[Mapping[str, int]] = MappingProxyType({"jpeg": 4, "jpeg2k": 4})
"""Greatest difference from the host's of a sample of a lossy stream, of 255.

Reckoned, not measured: an accurate inverse DCT is within 1 of another's samples (IEEE 1180); chroma
less 128 is multiplied by up to 1.772, and luma is added: 1 + 1.772 and a rounding, 4 at most."""

_PITCH_NBYTES: Final = 64
"""Rows of planes begin at multiples of it."""

_MAX_SIDE_PX: Final = 65_535
_MAX_SAMPLES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceImage:
    """What every image of a chain must be.

    Attributes
    ----------
    image_format : "jpeg" or "jpeg2k"
    height, width, samples : int
    sample_nbytes : int
    color : ImageColor
        What is made of the planes.
    signed : bool
        Whether samples of two bytes have a sign.
    tables : bytes
        Abbreviated JPEG stream shared by all; empty if there is none.
    tables_address : int
        Where they are in host memory, for as long as this object lives.
    defined : tuple of 3 int
        Quantisation, DC and AC tables that are among them, a bit each.
    """

    image_format: ImageFormat
    height: int
    width: int
    samples: int
    sample_nbytes: int
    color: ImageColor
    signed: bool = False
    tables: bytes = field(repr=False, default=b"")
    tables_address: int = 0
    defined: tuple[int, int, int] = (0, 0, 0)

    @property
    def decoded_nbytes(self) -> int:
        """Size of the pixels."""
        return self.height * self.width * self.samples * self.sample_nbytes

    @property
    def planes_nbytes(self) -> int:
        """Size of the planes at most."""
        return _pitch(self.width * self.sample_nbytes) * self.height * self.samples


def device_image(codec: Codec) -> DeviceImage | None:
    """How a device decodes images of a codec; None if none can."""
    rule = _RULES.get(codec.name)
    return None if rule is None else rule(codec)


def _pitch(nbytes: int) -> int:
    return -(-nbytes // _PITCH_NBYTES) * _PITCH_NBYTES


@lru_cache(maxsize=256)
def _defined(tables: bytes) -> tuple[int, int, int] | None:
    """Which tables a stream of tables defines; None if it is not understood."""
    if not tables:
        return 0, 0, 0
    headers = parse_tables(tables)
    if not headers.understood[0]:
        return None
    return int(headers.quantization[0]), int(headers.dc[0]), int(headers.ac[0])


def _jpeg_image(codec: Any) -> DeviceImage | None:
    defined = _defined(codec.tables)
    if defined is None or codec.short_height is not None:
        return None
    if max(codec.height, codec.width) > _MAX_SIDE_PX:
        return None
    address = np.frombuffer(codec.tables, np.uint8).ctypes.data if codec.tables else 0
    return DeviceImage(
        image_format="jpeg", height=codec.height, width=codec.width, samples=codec.samples,
        sample_nbytes=1, tables=codec.tables, tables_address=address, defined=defined,
        color=ImageColor.LIBJPEG_YCC if codec.colorspace == "ycbcr" else ImageColor.STORED,
    )  # fmt: skip


def _jpeg2k_image(codec: Any) -> DeviceImage | None:
    if codec.short_height is not None or (codec.signed and codec.bits == 8):
        return None
    if codec.samples > _MAX_SAMPLES or max(codec.height, codec.width) > _MAX_SIDE_PX:
        return None
    return DeviceImage(
        image_format="jpeg2k", height=codec.height, width=codec.width, samples=codec.samples,
        sample_nbytes=codec.bits // 8, signed=codec.signed,
        color=ImageColor.ROUNDED_YCC if codec.colorspace == "ycbcr" else ImageColor.STORED,
    )  # fmt: skip


def _zarr_image(codec: Any) -> DeviceImage | None:
    """Images in the place of Zarr's ``bytes``, if they are what imagecodecs takes without options.

    JPEG only where the metadata say what is stored: nothing is guessed from the stream.
    """
    function, shape, dtype = codec.recipe.function, codec.shape, codec.dtype
    if function not in _ZARR_FORMATS or codec.header or codec.positional:
        return None
    if len(shape) not in (2, 3) or not dtype.isnative or dtype.str[1:] not in ("u1", "u2", "i2"):
        return None
    height, width, samples = (*shape, 1)[:3]
    color = ImageColor.STORED
    if function == "jpeg8_decode":
        if dtype != np.uint8 or samples not in (1, 3):
            return None
        spaces = dict(codec.named)
        stored, wanted = spaces.pop("colorspace", None), spaces.pop("outcolorspace", None)
        if spaces or (samples == 3 and (wanted != _RGB or stored not in (_RGB, _YCBCR))):
            return None
        color = ImageColor.LIBJPEG_YCC if (samples, stored) == (3, _YCBCR) else color
    elif set(codec.named) - {"numthreads"}:
        return None
    if samples > _MAX_SAMPLES or max(height, width) > _MAX_SIDE_PX:
        return None
    return DeviceImage(
        image_format=_ZARR_FORMATS[function], height=height, width=width, samples=samples,
        sample_nbytes=dtype.itemsize, signed=dtype.kind == "i", color=color,
    )  # fmt: skip


_ZARR_FORMATS: Final[Mapping[str, ImageFormat]] = MappingProxyType(
    {"jpeg8_decode": "jpeg", "jpeg2k_decode": "jpeg2k"}
)
"""Decoder of imagecodecs -> ours."""
_RGB, _YCBCR = 2, 3
"""J_COLOR_SPACE (jpeglib.h)."""

_RULES: Final[Mapping[str, Callable[[Any], DeviceImage | None]]] = MappingProxyType(
    {
        "jpeg": _jpeg_image,
        "jpeg2k": _jpeg2k_image,
        **dict.fromkeys(
            ("imagecodecs_jpeg", "imagecodecs_jpeg8", "imagecodecs_jpeg2k"), _zarr_image
        ),
    }
)
"""Codec -> rule."""


def add_images(tables: DecodeTables, image: DeviceImage, offset: Int64s, nbytes: Int64s) -> None:
    """Say what a device has to do to decode n fetched images.

    Parameters
    ----------
    tables : DecodeTables
        Gets the steps; its `on_device` loses what is the host's.
    image : DeviceImage
    offset, nbytes : int64 (n,)
        Each stream in the payload.
    """
    _STREAMS[image.image_format](tables, image, offset, nbytes)


def _jpeg(tables: DecodeTables, image: DeviceImage, offset: Int64s, nbytes: Int64s) -> None:
    """Baseline JPEG; its data are looked through for what must not be in them."""
    headers = parse_headers(tables.payload, offset, nbytes)
    quantization, dc, ac = image.defined
    tables.on_device &= _is_expected(headers, image)
    tables.on_device &= ~headers.lacks_tables(quantization=quantization, dc=dc, ac=ac)
    rows = np.flatnonzero(tables.on_device)
    scan, end = headers.scan[rows], headers.end[rows]
    tables.add(
        FETCHED, "jpeg_scan", row=rows, source=scan, nbytes=end - scan,
        source_nbytes=end - scan + 1, restarts=(headers.restarts[rows] > 0).astype(np.int64),
    )  # fmt: skip
    stream_nbytes = end + 2 - offset[rows]
    across, down = headers.across[rows], headers.down[rows]
    color = np.full(len(rows), int(image.color))
    _planes(tables, image, rows, offset[rows], stream_nbytes, across, down, color)


def _jpeg2k(tables: DecodeTables, image: DeviceImage, offset: Int64s, nbytes: Int64s) -> None:
    """Complete codestreams; subsampled ones only of YCbCr, which OpenJPEG makes RGB of."""
    headers = parse_codestreams(tables.payload, offset, nbytes)
    full = (headers.across == 1) & (headers.down == 1)
    halved = (headers.across == 2) & (headers.down <= 2) & (headers.down >= 1)
    ycbcr = image.color == ImageColor.ROUNDED_YCC
    tables.on_device &= _is_expected(headers, image) & (full | (halved & ycbcr))
    tables.on_device &= headers.precision == 8 * image.sample_nbytes
    tables.on_device &= headers.signed == image.signed
    rows = np.flatnonzero(tables.on_device)
    color = np.where(full[rows], int(image.color), int(ImageColor.OPENJPEG_SYCC))
    across, down = headers.across[rows], headers.down[rows]
    start = headers.start[rows]
    stream_nbytes = headers.end[rows] - start
    _planes(tables, image, rows, start, stream_nbytes, across, down, color)


def _is_expected(headers: JpegHeaders | CodestreamHeaders, image: DeviceImage) -> Any:
    return (
        headers.understood
        & (headers.height == image.height)
        & (headers.width == image.width)
        & (headers.samples == image.samples)
    )


def _planes(
    tables: DecodeTables,
    image: DeviceImage,
    rows: Int64s,
    bitstream: Int64s,
    bitstream_nbytes: Int64s,
    across: Int64s,
    down: Int64s,
    color: Int64s,
) -> None:
    """Mark planes, decode into them, and make pixels of them."""
    size, height, width = image.sample_nbytes, image.height, image.width
    pitch = _pitch(width * size)
    row_nbytes = -(-width // across) * size
    chroma_pitch = -(-row_nbytes // _PITCH_NBYTES) * _PITCH_NBYTES
    chroma_nbytes = chroma_pitch * -(-height // down)
    chroma = min(max(image.samples - 1, 0), 2)
    planes_nbytes = pitch * height * (image.samples - chroma) + chroma_nbytes * chroma
    planes = tables.reserve(planes_nbytes)
    target = tables.reserve(np.full(len(rows), image.decoded_nbytes, np.int64))
    tables.result[rows] = target
    job = {
        "row": rows, "source": planes, "source_nbytes": planes_nbytes, "target": target,
        "target_nbytes": image.decoded_nbytes, "n": height * width, "width": width,
        "height": height, "samples": image.samples, "sample_nbytes": size, "pitch": pitch,
        "chroma_pitch": chroma_pitch, "across": across, "down": down, "color": color,
        "marked": 1,
    }  # fmt: skip
    tables.add(FETCHED, "mark_planes", **job)
    tables.add(
        STREAMS, image.image_format, row=rows, target=planes, bitstream=bitstream,
        bitstream_nbytes=bitstream_nbytes, samples=image.samples, pitch=pitch,
        chroma_pitch=chroma_pitch, plane_nbytes=pitch * height, chroma_nbytes=chroma_nbytes,
        sample_nbytes=size, signed=int(image.signed), tables=image.tables_address,
        tables_nbytes=len(image.tables),
    )  # fmt: skip
    tables.add(DECODED, "ycbcr", **job)


_STREAMS: Final[
    Mapping[ImageFormat, Callable[[DecodeTables, DeviceImage, Int64s, Int64s], None]]
] = MappingProxyType({"jpeg": _jpeg, "jpeg2k": _jpeg2k})
"""Format -> what checks its streams and adds their steps."""
