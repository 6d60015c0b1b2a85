"""NIfTI images: from files of a store to an array, and the header of whatever carries one.

An array of a ``.nii`` carries its header in its attributes. NIfTI-Zarr
(https://github.com/neuroscales/nifti-zarr) is an OME-Zarr image whose group has the header besides:
as the array ``nifti``, one byte an element, or, in drafts before 0.3, as base64 in the attribute
``nifti``. It opens as a `Slide`; `nifti_header` reads its header, and follows its levels.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zarrgpu.array import Array
from zarrgpu.errors import MetadataError, NodeNotFoundError, StoreError, UnsupportedFormatError
from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.nifti import (
    GZIP_MAGIC,
    HEAD_GZIP_NBYTES,
    MAX_HEADER_NBYTES,
    nifti_array_spec,
    pair_keys,
)
from zarrgpu.formats.nifti_header import NiftiHeader, parse_header
from zarrgpu.model import ArraySpec, ByteRange
from zarrgpu.slide import Slide
from zarrgpu.stores.base import Store

_MAX_HEADER_ARRAY_NBYTES: Final = 64 << 20
_GZIP_WINDOW: Final = 31


def read_nifti(store: Store, key: str, source: str) -> ArraySpec:
    """Describe the image whose file, or one of whose pair of files, is at `key`.

    Raises
    ------
    NodeNotFoundError
        If the other file of a pair is missing.
    UnsupportedFormatError, MetadataError
        See `parse_header` and `nifti_array_spec`.
    """
    if key.lower().endswith((".img", ".img.gz")):
        key = pair_keys(key)[0]
    data = _head(store, key)
    header = parse_header(data, source)
    image = key
    if header.kind == "pair":
        image = pair_keys(key)[1]
    elif header.kind != "single":
        raise UnsupportedFormatError(f"{source!r} has the magic of NIfTI-Zarr, and is a file")
    size = store.size(image)
    first = None if size is None else store.get_range(image, ByteRange(0, min(size, 2)))
    if size is None or first is None:
        raise _no_file(store, image)
    return nifti_array_spec(header, key=image, size=size, gzipped=first.tobytes() == GZIP_MAGIC)


def nifti_header(node: Array | Slide, level: int = 0) -> NiftiHeader:
    """NIfTI header of an array that was opened from a ``.nii``, or of a NIfTI-Zarr image.

    Parameters
    ----------
    node : Array or Slide
    level : int
        Of a NIfTI-Zarr image: affine, forms and zooms are those of that level, by the scales and
        translations of both levels; all else, `shape` too, is the header's and so level 0's.

    Raises
    ------
    UnsupportedFormatError
        If `node` has no NIfTI header.
    MetadataError
        If the header cannot be parsed.
    """
    if isinstance(node, Array):
        return _header_of_array(node)
    header = parse_header(_header_of_group(node), node.spec.source)
    if not 0 <= level < node.level_count:
        msg = f"{node.spec.source!r} has {node.level_count} levels, got level {level}"
        raise IndexError(msg)
    if level == 0 or node.group is None:
        return header
    finest, wanted = (_level_affine(node, each) for each in (0, level))
    return header.moved(np.linalg.inv(finest) @ wanted)


def header_bytes(node: Array | Slide) -> bytes:
    """Header and extensions as they are stored.

    Raises
    ------
    UnsupportedFormatError
        If `node` has no NIfTI header.
    """
    if isinstance(node, Slide):
        return _header_of_group(node)
    header = _header_of_array(node)
    location = node.spec.location
    if header.kind != "single" or not 0 <= header.vox_offset <= _MAX_HEADER_ARRAY_NBYTES:
        return header.raw
    store, key = node.source.store, location.key
    if not node.spec.codecs:
        data = store.get_range(key, ByteRange(0, header.vox_offset))
        return header.raw if data is None else data.tobytes()
    whole = store.get(key)
    return header.raw if whole is None else _inflated(whole.tobytes(), header.vox_offset)


def has_nifti_header(node: Any) -> bool:
    """Whether `nifti_header` will find one, without reading it."""
    if isinstance(node, Array):
        return isinstance(node.attrs.get("nifti"), Mapping) and "base64" in node.attrs["nifti"]
    group = node.group if isinstance(node, Slide) else None
    if group is None:
        return False
    return "nifti" in group.attrs or "nifti" in group


def _head(store: Store, key: str) -> bytes:
    """First bytes of a header file, decoded if they are gzip's."""
    size = store.size(key)
    nbytes = 0 if size is None else min(size, HEAD_GZIP_NBYTES)
    head = None if size is None else store.get_range(key, ByteRange(0, nbytes))
    if head is None:
        raise _no_file(store, key)
    data = head.tobytes()
    return _inflated(data, MAX_HEADER_NBYTES) if data[:2] == GZIP_MAGIC else data


def _inflated(data: bytes, nbytes: int) -> bytes:
    """First `nbytes` bytes of a gzip stream, or fewer; damage shows as a header that is none."""
    try:
        return zlib.decompressobj(_GZIP_WINDOW).decompress(data, nbytes)
    except zlib.error:
        return b""


def _no_file(store: Store, key: str) -> StoreError:
    return NodeNotFoundError(f"{store.url!r}: no file {key!r}, which a NIfTI pair needs")


def _header_of_array(array: Array) -> NiftiHeader:
    fields = array.attrs.get("nifti")
    if not isinstance(fields, Mapping) or not isinstance(fields.get("base64"), str):
        msg = f"{array.spec.source!r} carries no NIfTI header"
        raise UnsupportedFormatError(msg)
    return parse_header(_decoded(fields["base64"], array.spec.source), array.spec.source)


def _header_of_group(slide: Slide) -> bytes:
    """Header and extensions of a NIfTI-Zarr image."""
    group, source = slide.group, slide.spec.source
    if group is not None and "nifti" in group:
        member = group["nifti"]
        if isinstance(member, Array) and member.nbytes <= _MAX_HEADER_ARRAY_NBYTES:
            return bytes(np.ascontiguousarray(member.read(..., device="cpu")).tobytes())
        message = "must be an array of bytes"
        raise MetadataError(message, source=source, location=("nifti",), kind="type")
    attribute = None if group is None else group.attrs.get("nifti")
    if not isinstance(attribute, Mapping) or not isinstance(attribute.get("base64"), str):
        msg = f"{source!r} carries no NIfTI header: it is no NIfTI-Zarr image"
        raise UnsupportedFormatError(msg)
    return _decoded(attribute["base64"], source)


def _decoded(text: str, source: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        location = ("nifti", "base64")
        raise MetadataError(f"is no base64: {error}", source=source, location=location) from None


def _level_affine(slide: Slide, level: int) -> NDArray[np.float64]:
    """From voxel indices (i, j, k, 1) of a level to its dataset's coordinates, in order x, y, z."""
    group = slide.group
    assert group is not None
    attributes: Any = group.attrs.get("ome", group.attrs)
    document = Document(slide.spec.source, attributes)
    try:
        steps = attributes["multiscales"][0]["datasets"][level]["coordinateTransformations"]
    except (LookupError, TypeError):
        steps = None
    if not isinstance(steps, list):
        raise document.fail(f"level {level} has no coordinateTransformations", "multiscales")
    scale, shift = np.ones(len(slide.axes)), np.zeros(len(slide.axes))
    for step in steps:
        kind = step.get("type") if isinstance(step, Mapping) else None
        try:
            values = np.array(step[kind], np.float64)
        except (LookupError, TypeError, ValueError):
            values = np.empty(0)
        if kind not in ("scale", "translation") or values.shape != scale.shape:
            message = f"level {level}: {shown(step)} is no scale or translation of the axes"
            raise document.fail(message, "multiscales")
        scale, shift = (
            (scale * values, shift * values) if kind == "scale" else (scale, shift + values)
        )
    matrix = np.eye(4)
    for row, name in enumerate("xyz"):
        if name in slide.axes:
            axis = slide.axes.index(name)
            matrix[row, row], matrix[row, 3] = scale[axis], shift[axis]
    if not (np.isfinite(matrix).all() and np.diag(matrix).all()):
        raise document.fail(f"level {level}: scale or translation is not finite", "multiscales")
    return matrix
