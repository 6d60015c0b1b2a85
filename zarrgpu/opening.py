"""`open`: recognise what is at a path and make the object for it.

Order: ``zarr.json`` (v3), ``.zarray`` and ``.zgroup`` (v2), then a DICOM file or a TIFF by its
first bytes, then a folder of DICOM files. A group that describes a multiscale image becomes a
`Slide`, one that describes a plate a `Plate`. `hierarchy` says how nodes are found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, TypeAlias

from zarrgpu.array import Array
from zarrgpu.chunk_cache import ChunkCache
from zarrgpu.codecs.registry import build_chain
from zarrgpu.dicom import is_dicom_head, read_dicom, read_dicom_folder
from zarrgpu.errors import (
    DataError,
    NodeNotFoundError,
    UnsupportedCodecError,
    UnsupportedFormatError,
    ZarrGPUError,
)
from zarrgpu.fetch import ArraySource
from zarrgpu.formats import ome
from zarrgpu.formats.carried_over import carried_over, is_picture, properties_of_levels
from zarrgpu.formats.document import Document, shown
from zarrgpu.formats.ngff_plate import is_plate, is_well
from zarrgpu.formats.nifti import is_nifti_head
from zarrgpu.formats.range_cache import HEAD_NBYTES
from zarrgpu.formats.tiff_file import TiffFile
from zarrgpu.formats.tiff_ifd import is_tiff
from zarrgpu.formats.tiff_slide import read_slide, read_tiff_file
from zarrgpu.group import Group
from zarrgpu.hierarchy import Hierarchy, NodeSpec, join
from zarrgpu.magnification import parse_mpp
from zarrgpu.model import ArraySpec, ByteRange, Sharded
from zarrgpu.nifti import read_nifti
from zarrgpu.ome_image import OmeZarrImage
from zarrgpu.pages import Pages
from zarrgpu.plate import Plate, Well
from zarrgpu.rendered_tiles import RenderedTiles
from zarrgpu.scenes import Scene, Series, is_scene, is_series, only_image
from zarrgpu.slide import Slide
from zarrgpu.slide_model import SlideSpec
from zarrgpu.stores.base import Store, range_reader
from zarrgpu.stores.resolve import resolve_store, split_file

ReadTiff: TypeAlias = Callable[[TiffFile], SlideSpec | ArraySpec | tuple[ArraySpec, ...]]
"""How a TIFF is described: by what it holds, or as a slide."""

_INDEX_ENTRY_NBYTES = 16
_FILE_SUFFIXES = (
    ".tif", ".tiff", ".svs", ".ndpi", ".scn", ".bif", ".qptiff", ".btf", ".tf8", ".avs", ".dcm",
    ".nii", ".nii.gz",
)  # fmt: skip
"""Names that are looked at as files first, which saves asking for Zarr documents within them."""


def open(
    path: str | os.PathLike[str] | Store,
    *,
    filesystem: Any = None,
    storage_options: dict[str, Any] | None = None,
    use_consolidated: bool | None = None,
    cache: ChunkCache | int | None = None,
) -> Array | Group | Slide | Plate | Well | Pages:
    """Open a Zarr array or group, an OME-Zarr image, a slide or a TIFF. Reads metadata only.

    Parameters
    ----------
    path : path, URL or Store
        Local path, or any URL that fsspec knows.
    filesystem : fsspec filesystem, optional
        Then `path` is a path within it.
    storage_options : dict, optional
        Passed to fsspec with a URL.
    use_consolidated : bool, optional
        Whether to take the members of a group from its consolidated metadata: None (default) where
        it has any, True demands it, False reads every node's own documents. As in zarr-python, and
        False holds for all groups below too.
    cache : ChunkCache or int, optional
        Keeps decoded chunks between reads, for all that is opened by this call: in host memory of
        reads on the CPU, in a GPU's memory of reads there, of each at most so many bytes. By
        default nothing is kept.

    Returns
    -------
    Array
        For a Zarr v2 or v3 array; for a TIFF of one page (y, x, c), or of pages that are stored
        alike (page, y, x, c; ImageJ's t, z, c in place of page).
    Slide
        For a whole-slide file, a TIFF with overviews or masks, or a multiscale OME-Zarr image
        (an `OmeZarrImage`).
    Plate, Well
        For those of OME-Zarr.
    Group
        For any other Zarr group: a `Series` for the images of bioformats2raw, a `Scene` for those
        of an OME-Zarr scene.
    Pages
        For any other TIFF: one array for each page.

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
    return _open(store, cache, read_tiff_file, use_consolidated=use_consolidated)


def open_slide(
    path: str | os.PathLike[str] | Store,
    *,
    filesystem: Any = None,
    storage_options: dict[str, Any] | None = None,
    use_consolidated: bool | None = None,
    cache: ChunkCache | int | None = None,
    mpp: float | tuple[float, float] | None = None,
    fill_value: Any = None,
) -> Slide:
    """Open a whole-slide file or a multiscale OME-Zarr image; anything else is an error.

    Of a series (what bioformats2raw writes) that has one image, that image.

    Parameters and errors are those of `open`, and:

    Parameters
    ----------
    path, filesystem, storage_options, use_consolidated, cache
        As for `open`.
    mpp : float or (float, float), optional
        Micrometres per pixel of level 0, of both axes or of x and y, for a file that does not state
        them or states wrong ones.
    fill_value : scalar, optional
        See `Slide.with_fill_value`.
    """
    store = resolve_store(path, filesystem=filesystem, storage_options=storage_options)
    node = only_image(_open(store, cache, read_slide, use_consolidated=use_consolidated))
    if not isinstance(node, Slide):
        msg = f"{store.url!r} is a {type(node).__name__}, not a slide; use open()"
        raise UnsupportedFormatError(msg)
    if mpp is not None:
        spec = replace(node.spec, mpp=parse_mpp(mpp))
        if isinstance(node, OmeZarrImage):
            node = node.replaced(spec, node.levels)
        else:
            node = Slide(spec, node.levels, node.associated_images, node.group)
    return node if fill_value is None else node.with_fill_value(fill_value)


def detect_format(path: str | os.PathLike[str] | Store) -> str | None:
    """Vendor of a slide, as OpenSlide names it where it does; None for what does not open as one.

    The first call of OpenSlide's programs: ``OpenSlide.detect_format``.
    """
    try:
        return open_slide(path).spec.vendor
    except (DataError, NodeNotFoundError, UnsupportedFormatError, UnsupportedCodecError):
        return None


def _open(
    store: Store,
    cache: ChunkCache | int | None,
    read_tiff: ReadTiff,
    *,
    use_consolidated: bool | None,
) -> Array | Group | Slide | Plate | Well | Pages:
    if isinstance(cache, int):
        cache = ChunkCache(cache)
    file_first = store.url.lower().endswith(_FILE_SUFFIXES)
    if file_first and (node := _open_file(store, cache, read_tiff)) is not None:
        return node
    hierarchy = Hierarchy(store, use_consolidated, cache)
    spec = hierarchy.root("")
    if spec is not None:
        return make_node(hierarchy, "", spec)
    if not file_first and (node := _open_file(store, cache, read_tiff)) is not None:
        return node
    series = read_dicom_folder(store)
    if series is None:
        msg = (
            f"{store.url!r}: nothing to read here: expected a Zarr array or group (zarr.json, "
            ".zarray or .zgroup), a whole-slide TIFF, or DICOM files; check the path"
        )
        raise NodeNotFoundError(msg)
    return _slide(store, series, cache)


def make_node(
    hierarchy: Hierarchy,
    path: str,
    spec: NodeSpec,
    known: Mapping[str, NodeSpec] = MappingProxyType({}),
) -> Array | Group | Slide | Plate | Well:
    """Make the object for a node whose metadata was read.

    Parameters
    ----------
    hierarchy : Hierarchy
    path : str
        Of the node within the store.
    spec : ArraySpec or GroupSpec
    known : mapping
        Path -> metadata of other nodes, so that the levels of an image are not read again.
    """
    if isinstance(spec, ArraySpec):
        return Array(array_source(hierarchy.store, spec, hierarchy.cache), path)
    attributes = spec.attributes
    if is_scene(attributes):
        return Scene(hierarchy, path, spec, make_node)
    group = Group(hierarchy, path, spec, make_node)
    if ome.is_multiscale(attributes):
        return _open_multiscale(group, known)
    if is_plate(attributes):
        return Plate(group)
    if is_well(attributes):
        return Well(group)
    # a plate has this too, and goes first
    return Series(hierarchy, path, spec, make_node) if is_series(attributes) else group


def reopen_multiscale(group: Group, index: int) -> OmeZarrImage:
    """Open another image of a group that describes several."""
    return _open_multiscale(group, {}, index)


def array_source(store: Store, spec: ArraySpec, cache: ChunkCache | None = None) -> ArraySource:
    """Make the source of an array: its decoders are built, and refused, here."""
    chain = build_chain(spec.codecs, spec.decoded_limit_nbytes, source=spec.source)
    index_chain = None
    if isinstance(spec.location, Sharded):
        entries = 1
        for shard, chunk in zip(spec.location.shard_shape, spec.chunk_shape, strict=True):
            entries *= shard // chunk
        index_chain = build_chain(
            spec.location.index_codecs, entries * _INDEX_ENTRY_NBYTES, source=spec.source
        )
    return ArraySource(spec, store, chain, index_chain, cache=cache)


def level_sources(
    store: Store, levels: Sequence[ArraySpec], cache: ChunkCache | None
) -> list[ArraySource]:
    """Sources of a slide's levels; tiles that one has lost come from the level before it."""
    sources = [array_source(store, level, cache) for level in levels]
    for finer, source in pairwise(sources):
        missing = source.spec.substitute
        if missing is not None:
            ratios = [finer.spec.shape[axis] / missing.shape[axis] for axis in (0, 1)]
            tiles = RenderedTiles(missing, finer, sum(ratios) / 2)
            source.substitute = array_source(tiles, missing, cache)
    return sources


def _open_multiscale(group: Group, known: Mapping[str, NodeSpec], number: int = 0) -> OmeZarrImage:
    """Open the levels of an OME-Zarr image."""
    metadata, hierarchy = group.metadata, group.hierarchy
    image = ome.parse_multiscale(metadata.attributes, metadata.source, number)
    document = Document(metadata.source, metadata.attributes, image.location)
    arrays = []
    for index, level in enumerate(image.paths):
        parts = [part for part in level.split("/") if part not in ("", ".")]
        relative = "/".join(parts)
        path = join(group.path, relative)
        # not opened: it might be this group
        array_spec = None
        if ".." not in parts:
            array_spec = known.get(path) or hierarchy.child(group.path, metadata, relative)
        if not isinstance(array_spec, ArraySpec) or array_spec.ndim != len(image.axes):
            message = f"level {shown(level)} is no array of {len(image.axes)} axes"
            raise document.fail(message, "datasets", index, "path")
        arrays.append(Array(array_source(hierarchy.store, array_spec, hierarchy.cache), path))
    carried = carried_over(metadata.attributes)
    associated = _open_associated(group, carried.associated)
    levels = tuple(array.source.spec for array in arrays)
    x, y = image.axes.index("x"), image.axes.index("y")
    downsamples = None
    if not any(0 in level.shape for level in levels):
        downsamples = image.downsamples([(level.shape[x], level.shape[y]) for level in levels])
    spec = SlideSpec(
        source=metadata.source,
        vendor="ome-zarr",
        levels=levels,
        axes=image.axes,
        mpp=image.mpp,
        properties=properties_of_levels(carried.properties, levels, (x, y), downsamples),
        associated={name: picture.spec for name, picture in associated.items()},
        icc_profile=carried.icc_profile,
        channels=image.channels,
        downsamples=downsamples,
    )
    return OmeZarrImage(
        spec, tuple(arrays), associated, group, multiscale=image, reopen=reopen_multiscale
    )


def _open_associated(group: Group, paths: Mapping[str, str]) -> dict[str, Array]:
    """Open the associated images that a conversion wrote; what is none is left out."""
    found = {}
    for name, path in paths.items():
        try:
            member = group.get(path)
        except ZarrGPUError:
            continue
        if isinstance(member, Array) and is_picture(member.shape):
            found[name] = member
    return found


def _open_nifti(folder: Store, key: str, url: str, cache: ChunkCache | None) -> Array:
    """Open a NIfTI image; one that is a gzip stream is kept decoded, for it is a single chunk."""
    spec = read_nifti(folder, key, url)
    if spec.codecs and cache is None:
        cache = ChunkCache(spec.chunk_nbytes)
    return Array(array_source(folder, spec, cache))


def _tiff_file(folder: Store, key: str, size: int, source: str, head: bytes = b"") -> TiffFile:
    """TIFF of a folder, which finds the others in it; `head` is what was read of it already."""

    def sibling(name: str) -> TiffFile | None:
        nbytes = folder.size(name)
        return None if nbytes is None else _tiff_file(folder, name, nbytes, f"{folder.url}/{name}")

    read_range = range_reader(folder, key, source, head)
    return TiffFile(read_range, size, source=source, key=key, sibling=sibling)


def _open_file(
    store: Store, cache: ChunkCache | None, read_tiff: ReadTiff
) -> Slide | Array | Pages | None:
    """Open a store that is rooted at a file."""
    split = split_file(store)
    if split is None:
        return None
    folder, key = split
    size = folder.size(key)
    if size is None:
        return None
    start = folder.get_range(key, ByteRange(0, min(size, HEAD_NBYTES)))
    head = b"" if start is None else start.tobytes()
    if is_nifti_head(head, key):
        return _open_nifti(folder, key, store.url, cache)
    if is_dicom_head(head, key):
        return _slide(folder, read_dicom(folder, key, store.url, head), cache)
    if not is_tiff(head):
        msg = f"{store.url!r}: not a TIFF nor DICOM, which are the files of slides that are read"
        raise UnsupportedFormatError(msg)
    spec = read_tiff(_tiff_file(folder, key, size, store.url, head))
    if isinstance(spec, ArraySpec):
        return Array(array_source(folder, spec, cache))
    if isinstance(spec, SlideSpec):
        return _slide(folder, spec, cache)
    return Pages(store.url, [Array(array_source(folder, page, cache)) for page in spec])


def _slide(folder: Store, spec: SlideSpec, cache: ChunkCache | None) -> Slide:
    sources = level_sources(folder, spec.levels, cache)
    levels = tuple(Array(source, f"level {i}") for i, source in enumerate(sources))
    associated = {}
    for name, image in spec.associated.items():
        try:
            associated[name] = Array(array_source(folder, image, cache), name)
        except UnsupportedCodecError:  # the slide itself is readable; OpenSlide drops these too
            continue
    return Slide(spec, levels, associated)
