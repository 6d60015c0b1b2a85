"""`open`: recognise what is at a path and make the object for it.

Order: ``zarr.json`` (v3), ``.zarray`` and ``.zgroup`` (v2), then a TIFF by its first bytes. A group
that describes a multiscale image becomes a `Slide`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from zarrgpu.array import Array
from zarrgpu.codecs.registry import build_chain
from zarrgpu.errors import (
    NodeNotFoundError,
    StoreError,
    UnsupportedCodecError,
    UnsupportedFormatError,
)
from zarrgpu.fetch import ArraySource
from zarrgpu.formats import ome, zarr_v2, zarr_v3
from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.group import GroupSpec
from zarrgpu.formats.tiff_ifd import is_tiff
from zarrgpu.formats.tiff_slide import read_tiff_slide
from zarrgpu.group import Group
from zarrgpu.model import ArraySpec, ByteRange, Sharded, SlideSpec
from zarrgpu.slide import Slide
from zarrgpu.stores.base import Store
from zarrgpu.stores.resolve import resolve_store, split_file

_INDEX_ENTRY_NBYTES = 16
_HEAD_NBYTES = 16


def open(
    path: str | os.PathLike[str] | Store,
    *,
    filesystem: Any = None,
    storage_options: dict[str, Any] | None = None,
) -> Array | Group | Slide:
    """Open a Zarr array or group, an OME-Zarr image, or a whole-slide file. Reads metadata only.

    Parameters
    ----------
    path : path, URL or Store
        Local path, or any URL that fsspec knows.
    filesystem : fsspec filesystem, optional
        Then `path` is a path within it.
    storage_options : dict, optional
        Passed to fsspec with a URL.

    Returns
    -------
    Array
        For a Zarr v2 or v3 array.
    Slide
        For a whole-slide file or a multiscale OME-Zarr image.
    Group
        For any other Zarr group.

    Raises
    ------
    NodeNotFoundError
        If nothing readable is at `path`.
    MetadataError, UnsupportedFormatError, UnsupportedCodecError
        If what is there is corrupt or of a kind that is not read.
    StoreError
        If the store fails.
    """
    store = resolve_store(path, filesystem=filesystem, storage_options=storage_options)
    node = find_node(store, "")
    if node is None:
        node = _open_file(store)
    if node is None:
        msg = (
            f"{store.url!r}: nothing to read here: expected a Zarr array or group (zarr.json, "
            ".zarray or .zgroup) or a whole-slide TIFF; check the path"
        )
        raise NodeNotFoundError(msg)
    return node


def open_slide(
    path: str | os.PathLike[str] | Store,
    *,
    filesystem: Any = None,
    storage_options: dict[str, Any] | None = None,
) -> Slide:
    """Open a whole-slide file or a multiscale OME-Zarr image; anything else is an error.

    Parameters and errors are those of `open`.
    """
    node = open(path, filesystem=filesystem, storage_options=storage_options)
    if not isinstance(node, Slide):
        where = path.url if isinstance(path, Store) else os.fspath(path)
        msg = f"{where!r} is a {type(node).__name__}, not a slide; use open()"
        raise UnsupportedFormatError(msg)
    return node


def open_node(store: Store, path: str) -> Array | Group | Slide:
    """Open the Zarr node at `path` within `store`; a missing one is an error."""
    node = find_node(store, path)
    if node is None:
        msg = f"{store.url!r}: no Zarr array or group at {path!r}"
        raise NodeNotFoundError(msg)
    return node


def find_node(store: Store, path: str) -> Array | Group | Slide | None:
    """Open the Zarr node at `path` within `store`, or None if there is none."""
    node = _read_node(store, path)
    if node is None:
        return None
    if isinstance(node, ArraySpec):
        return Array(array_source(store, node), path)
    if ome.is_multiscale(node.attributes):
        return _open_multiscale(store, path, node)
    return Group(store, path, node, open_node)


def _read_node(store: Store, path: str) -> ArraySpec | GroupSpec | None:
    """Parse the metadata of the node at `path`, or None if there is none."""
    base = f"{path}/" if path else ""
    where = f"{store.url}/{path}" if path else store.url
    data = store.get(f"{base}zarr.json")
    if data is not None:
        return zarr_v3.parse_node(Document.parse(data.tobytes(), where), path)
    for name in (".zarray", ".zgroup"):
        data = store.get(f"{base}{name}")
        if data is None:
            continue
        document = Document.parse(data.tobytes(), where)
        attributes = _v2_attributes(store, base, where)
        if name == ".zarray":
            return zarr_v2.parse_array(document, attributes, path)
        return zarr_v2.parse_group(document, attributes)
    return None


def array_source(store: Store, spec: ArraySpec) -> ArraySource:
    """Make the source of an array: its decoders are built, and refused, here."""
    chain = build_chain(spec.codecs, spec.chunk_nbytes, source=spec.source)
    index_chain = None
    if isinstance(spec.location, Sharded):
        entries = 1
        for shard, chunk in zip(spec.location.shard_shape, spec.chunk_shape, strict=True):
            entries *= shard // chunk
        index_chain = build_chain(
            spec.location.index_codecs, entries * _INDEX_ENTRY_NBYTES, source=spec.source
        )
    return ArraySource(spec, store, chain, index_chain)


def _v2_attributes(store: Store, base: str, where: str) -> Mapping[str, Any]:
    data = store.get(f"{base}.zattrs")
    return {} if data is None else Document.parse(data.tobytes(), f"{where}/.zattrs").value


def _open_multiscale(store: Store, path: str, group: GroupSpec) -> Slide:
    """Open the levels of an OME-Zarr image."""
    image = ome.parse_multiscale(group.attributes, group.source)
    base = f"{path}/" if path else ""
    document = Document(group.source, group.attributes, image.location)
    arrays = []
    for index, level in enumerate(image.paths):
        array_spec = _read_node(store, f"{base}{level}")  # not opened: it might be this group
        if not isinstance(array_spec, ArraySpec) or array_spec.ndim != len(image.axes):
            message = f"level {shown(level)} is no array of {len(image.axes)} axes"
            raise document.fail(message, "datasets", index, "path")
        arrays.append(Array(array_source(store, array_spec), f"{base}{level}"))
    spec = SlideSpec(
        source=group.source,
        vendor="ome-zarr",
        levels=tuple(array.source.spec for array in arrays),
        axes=image.axes,
        mpp=image.mpp,
        properties={},
        associated={},
        channels=image.channels,
    )
    return Slide(spec, tuple(arrays), {}, group=Group(store, path, group, open_node))


def _open_file(store: Store) -> Slide | None:
    """Open a store that is rooted at a file."""
    split = split_file(store)
    if split is None:
        return None
    folder, key = split
    size = folder.size(key)
    if size is None:
        return None
    head = folder.get_range(key, ByteRange(0, min(size, _HEAD_NBYTES)))
    if head is None or not is_tiff(head.tobytes()):
        msg = f"{store.url!r}: not a TIFF, and the only files that are read are whole-slide TIFFs"
        raise UnsupportedFormatError(msg)

    def read_range(offset: int, nbytes: int) -> bytes:
        data = folder.get_range(key, ByteRange(offset, nbytes))
        if data is None:
            msg = f"{store.url!r} vanished while it was opened"
            raise StoreError(msg)
        return data.tobytes()

    spec = read_tiff_slide(read_range, size, source=store.url, key=key)
    levels = tuple(
        Array(array_source(folder, level), f"level {i}") for i, level in enumerate(spec.levels)
    )
    associated = {}
    for name, image in spec.associated.items():
        try:
            associated[name] = Array(array_source(folder, image), name)
        except UnsupportedCodecError:  # the slide itself is readable; OpenSlide drops these too
            continue
    return Slide(spec, levels, associated)
