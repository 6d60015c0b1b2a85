"""The header of a NIfTI-1 or NIfTI-2 image, in either byte order.

Spec: nifti1.h and nifti2.h (https://nifti.nimh.nih.gov). NIfTI-1 has 348 bytes, NIfTI-2 540; which
of them a file has, and its byte order, is told by the first field, the header's own size. A magic
of ``n+`` is a single file, ``ni`` a pair of ``.hdr`` and ``.img``, ``nz`` NIfTI-Zarr.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zarrgpu.errors import MetadataError, UnsupportedFormatError
from zarrgpu.formats.nifti_affine import base_affine, qform_affine

HEADER_NBYTES: Final = MappingProxyType({1: 348, 2: 540})
"""By version."""

MAX_NDIM: Final = 7

_NIFTI1: Final = np.dtype(
    "i4,S10,S18,i4,i2,S1,u1,8i2,3f4,i2,i2,i2,i2,8f4,f4,f4,f4,i2,u1,u1,f4,f4,f4,f4,i4,i4,S80,"
    "S24,i2,i2,3f4,3f4,(3,4)f4,S16,S4"
)
_NIFTI1_NAMES: Final = (
    "sizeof_hdr", "data_type", "db_name", "extents", "session_error", "regular", "dim_info", "dim",
    "intent_p", "intent_code", "datatype", "bitpix", "slice_start", "pixdim", "vox_offset",
    "scl_slope", "scl_inter", "slice_end", "slice_code", "xyzt_units", "cal_max", "cal_min",
    "slice_duration", "toffset", "glmax", "glmin", "descrip", "aux_file", "qform_code",
    "sform_code", "quatern", "qoffset", "srow", "intent_name", "magic",
)  # fmt: skip
_NIFTI2: Final = np.dtype(
    "i4,S8,i2,i2,8i8,3f8,8f8,i8,f8,f8,f8,f8,f8,f8,i8,i8,S80,S24,i4,i4,3f8,3f8,(3,4)f8,i4,"
    "i4,i4,S16,u1,S15"
)
_NIFTI2_NAMES: Final = (
    "sizeof_hdr", "magic", "datatype", "bitpix", "dim", "intent_p", "pixdim", "vox_offset",
    "scl_slope", "scl_inter", "cal_max", "cal_min", "slice_duration", "toffset", "slice_start",
    "slice_end", "descrip", "aux_file", "qform_code", "sform_code", "quatern", "qoffset", "srow",
    "slice_code", "xyzt_units", "intent_code", "intent_name", "dim_info", "unused",
)  # fmt: skip

ByteOrder: TypeAlias = Literal["<", ">"]

_DTYPES: Final[Mapping[int, Any]] = MappingProxyType(
    {
        2: "u1", 4: "i2", 8: "i4", 16: "f4", 32: "c8", 64: "f8", 256: "i1", 512: "u2", 768: "u4",
        1024: "i8", 1280: "u8", 1792: "c16",
        128: [("R", "u1"), ("G", "u1"), ("B", "u1")],
        2304: [("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")],
    }
)  # fmt: skip
"""NIfTI datatype -> NumPy's; colours are structures of bytes, as in nibabel."""

_UNREAD: Final = MappingProxyType({1: "binary", 1536: "float128", 2048: "complex256"})
_SPACE_UNITS: Final = MappingProxyType({1: "meter", 2: "mm", 3: "micron"})
_TIME_UNITS: Final = MappingProxyType(
    {8: "sec", 16: "msec", 24: "usec", 32: "hz", 40: "ppm", 48: "rads"}
)
_MAX_ELEMENTS: Final = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NiftiHeader:
    """What a header says.

    Attributes
    ----------
    source : str
        Path or URL, for messages.
    version : int
        1 or 2.
    kind : "single", "pair" or "zarr"
        By the magic.
    shape : tuple of int
        Voxels along x, y, z, t and up to three further axes.
    dtype : numpy.dtype
        As stored, byte order included. RGB24 and RGBA32 are structures of ``R``, ``G``, ``B``
        (and ``A``).
    vox_offset : int
        First byte of the voxels in their file.
    affine : float64 array, shape (4, 4)
        From voxel indices ``(i, j, k, 1)`` to world coordinates in `space_unit`, RAS+.
    affine_source : "sform", "qform" or "base"
        The rule that gave `affine`: sform where its code is above 0, else qform where its code is,
        else (nibabel's rule for what the standard calls method 1) the voxel sizes with x flipped
        and the centre of the volume as the origin.
    qform, sform : float64 arrays, shape (4, 4), or None
        None where the code is 0.
    qform_code, sform_code : int
    zooms : tuple of float
        Size of a voxel along each axis, in `space_unit` for the first three, `time_unit` for the
        fourth.
    space_unit, time_unit : str or None
        In nibabel's words: ``meter``, ``mm``, ``micron``; ``sec``, ``msec``, ``usec``, ``hz``,
        ``ppm``, ``rads``.
    scl_slope, scl_inter : float or None
        Stored values mean ``slope * value + inter``. None where there is no scaling: a slope of
        0 or one that is no number, and colours, to which the standard never applies it.
    raw : bytes
        The header as it stands.
    fields : mapping
        The other fields by their names in the standard.
    """

    source: str
    version: int
    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    vox_offset: int
    affine: NDArray[np.float64]
    affine_source: str
    qform: NDArray[np.float64] | None
    sform: NDArray[np.float64] | None
    qform_code: int
    sform_code: int
    zooms: tuple[float, ...]
    space_unit: str | None
    time_unit: str | None
    scl_slope: float | None
    scl_inter: float | None
    raw: bytes
    fields: dict[str, Any]

    def moved(self, voxels: NDArray[np.float64]) -> Self:
        """Header of the same space on another grid; `voxels` takes its indices to this one's.

        Parameters
        ----------
        voxels : float64 array, shape (4, 4)
        """
        scale = np.abs(np.diag(voxels)[:3])
        zooms = [z * s for z, s in zip(self.zooms, scale, strict=False)] + list(self.zooms[3:])
        return replace(
            self,
            affine=self.affine @ voxels,
            qform=None if self.qform is None else self.qform @ voxels,
            sform=None if self.sform is None else self.sform @ voxels,
            zooms=tuple(float(z) for z in zooms),
        )

    def attributes(self) -> dict[str, Any]:
        """The header as JSON-like attributes of an array."""
        return {
            "affine": self.affine.tolist(),
            "affine_source": self.affine_source,
            "zooms": list(self.zooms),
            "units": {"space": self.space_unit, "time": self.time_unit},
            "scl_slope": self.scl_slope,
            "scl_inter": self.scl_inter,
            "nifti": {
                "version": self.version,
                "qform": None if self.qform is None else self.qform.tolist(),
                "sform": None if self.sform is None else self.sform.tolist(),
                "qform_code": self.qform_code,
                "sform_code": self.sform_code,
                **self.fields,
                "base64": base64.b64encode(self.raw).decode(),
            },
        }


def header_version(head: bytes) -> tuple[int, ByteOrder] | None:
    r"""Version and byte order ("<" or ">") by the first four bytes; None if this is no NIfTI.

    >>> header_version(b"\x5c\x01\0\0"), header_version(b"\0\0\x02\x1c")
    ((1, '<'), (2, '>'))
    """
    orders: tuple[ByteOrder, ...] = ("<", ">")
    for order in orders:
        nbytes = int.from_bytes(head[:4], "little" if order == "<" else "big")
        for version, size in HEADER_NBYTES.items():
            if nbytes == size and len(head) >= 4:
                return version, order
    return None


def parse_header(data: bytes, source: str) -> NiftiHeader:
    """Parse a header.

    Parameters
    ----------
    data : bytes
        At least the header; what follows it is not looked at.
    source : str

    Raises
    ------
    UnsupportedFormatError
        ANALYZE 7.5, and data types that are not read, by name.
    MetadataError
        Fields that cannot be right.
    """
    found = header_version(data)
    if found is None or len(data) < HEADER_NBYTES[found[0]]:
        message = f"no NIfTI header in {len(data)} bytes that start with {data[:4].hex()!r}"
        raise MetadataError(message, source=source, kind="syntax")
    version, order = found
    raw = data[: HEADER_NBYTES[version]]
    layout, names = (_NIFTI1, _NIFTI1_NAMES) if version == 1 else (_NIFTI2, _NIFTI2_NAMES)
    record = np.frombuffer(raw, layout.newbyteorder(order))[0]
    with np.errstate(invalid="ignore"):  # numbers that are none are looked at where they matter
        return _header(dict(zip(names, record, strict=True)), version, order, raw, source)


def _header(
    values: dict[str, Any], version: int, order: ByteOrder, raw: bytes, source: str
) -> NiftiHeader:
    """Make the header of its fields."""
    kind = _kind(values, version, source)
    shape, dtype = _shape(values, source), _dtype(values, order, source)
    pixdim = np.asarray(values["pixdim"], np.float64)
    zooms = np.abs(pixdim[1 : len(shape) + 1])
    qform_code, sform_code = int(values["qform_code"]), int(values["sform_code"])
    qform = sform = None
    if qform_code > 0:
        qform = qform_affine(values["quatern"], values["qoffset"], pixdim)
    if sform_code > 0:
        sform = np.vstack([np.asarray(values["srow"], np.float64), [0.0, 0.0, 0.0, 1.0]])
    affine, rule = next(
        (matrix, name)
        for matrix, name in (
            (sform, "sform"),
            (qform, "qform"),
            (base_affine(shape, list(zooms)), "base"),
        )
        if matrix is not None
    )
    slope, inter = _scaling(values, dtype, source)
    units = int(values["xyzt_units"])
    return NiftiHeader(
        source=source,
        version=version,
        kind=kind,
        shape=shape,
        dtype=dtype,
        vox_offset=_vox_offset(values, version, kind, source),
        affine=affine,
        affine_source=rule,
        qform=qform,
        sform=sform,
        qform_code=qform_code,
        sform_code=sform_code,
        zooms=tuple(zooms.tolist()),
        space_unit=_SPACE_UNITS.get(units & 0x07),
        time_unit=_TIME_UNITS.get(units & 0x38),
        scl_slope=slope,
        scl_inter=inter,
        raw=raw,
        fields=_other_fields(values),
    )


def _fail(source: str, field: str, message: str) -> MetadataError:
    return MetadataError(message, source=source, location=("header", field))


def _kind(values: dict[str, Any], version: int, source: str) -> str:
    magic = bytes(values["magic"])[:3]
    for sign, kind in ((b"n+", "single"), (b"ni", "pair"), (b"nz", "zarr")):
        if magic == sign + str(version).encode():
            return kind
    if version == 1 and not magic:
        msg = f"{source!r} has no NIfTI magic: an ANALYZE 7.5 image, which zarrgpu does not read"
        raise UnsupportedFormatError(msg)
    raise _fail(source, "magic", f"expected n+{version}, ni{version} or nz{version}, got {magic!r}")


def _shape(values: dict[str, Any], source: str) -> tuple[int, ...]:
    dim = [int(n) for n in values["dim"]]
    if not 1 <= dim[0] <= MAX_NDIM:
        raise _fail(source, "dim", f"number of axes must be 1 to {MAX_NDIM}, got {dim[0]}")
    shape = tuple(dim[1 : dim[0] + 1])
    # FreeSurfer's surfaces, whose vertices do not fit into an int16
    if shape[:3] == (-1, 1, 1) and "glmin" in values:
        shape = (int(values["glmin"]), *shape[1:])
    elif shape[:3] == (27307, 1, 6) and "glmin" in values:
        shape = (27307 * 6, 1, 1, *shape[3:])
    if min(shape) < 1 or math.prod(shape) > _MAX_ELEMENTS:
        raise _fail(source, "dim", f"cannot be the shape of an image: {shape}")
    return shape


def _dtype(values: dict[str, Any], order: ByteOrder, source: str) -> np.dtype[Any]:
    code = int(values["datatype"])
    if code not in _DTYPES:
        name = f" ({_UNREAD[code]})" if code in _UNREAD else ""
        msg = f"{source!r}: NIfTI datatype {code}{name} is not read"
        raise UnsupportedFormatError(msg)
    # NumPy calls bytes, and structures of them, of no order
    dtype: np.dtype[Any] = np.dtype(_DTYPES[code])
    return dtype.newbyteorder(order)


def _vox_offset(values: dict[str, Any], version: int, kind: str, source: str) -> int:
    value = float(values["vox_offset"])
    # behind the header stand four bytes that tell of extensions
    least = HEADER_NBYTES[version] + 4 if kind == "single" else 0
    if not (math.isfinite(value) and value == int(value) and least <= value < _MAX_ELEMENTS):
        message = f"must be a whole number of at least {least}, got {value}"
        raise _fail(source, "vox_offset", message)
    return int(value)


def _scaling(
    values: dict[str, Any], dtype: np.dtype[Any], source: str
) -> tuple[float | None, float | None]:
    slope, inter = float(values["scl_slope"]), float(values["scl_inter"])
    if slope == 0 or not math.isfinite(slope) or dtype.names is not None:
        return None, None
    if not math.isfinite(inter):
        raise _fail(source, "scl_inter", f"scl_slope is {slope}, the intercept {inter}")
    return slope, inter


def _other_fields(values: dict[str, Any]) -> dict[str, Any]:
    """What nothing here needs, for users."""
    numbers = (
        "dim_info", "intent_code", "slice_start", "slice_end", "slice_code", "slice_duration",
        "toffset", "cal_min", "cal_max", "bitpix", "datatype",
    )  # fmt: skip
    texts = ("descrip", "aux_file", "intent_name")
    return {
        **{name: values[name].item() for name in numbers},
        **{name: bytes(values[name]).decode("latin-1") for name in texts},
        "intent_p": values["intent_p"].tolist(),
        "pixdim": values["pixdim"].tolist(),
    }
