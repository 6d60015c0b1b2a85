"""The conversion: levels one after another, their shards in parallel, a rename at the end."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zarrgpu.array import Array
from zarrgpu.convert import jpeg_tiles
from zarrgpu.convert.downsample import halve
from zarrgpu.convert.labels import LABELS, label_levels, label_sources
from zarrgpu.convert.layout import codec_name, create_array, require_zarr
from zarrgpu.convert.levels import Level, plan_levels
from zarrgpu.convert.metadata import ome_metadata, own_metadata
from zarrgpu.convert.progress import Progress
from zarrgpu.convert.settings import ConvertOptions
from zarrgpu.convert.source import Box, Source, open_source
from zarrgpu.convert.state import PartialOutput, fingerprint, local_output
from zarrgpu.devices.host import available_cores
from zarrgpu.errors import MemoryBudgetError, RequestError, StoreError
from zarrgpu.hierarchy import join
from zarrgpu.model import Manifest, ReadOptions
from zarrgpu.opening import open as open_node
from zarrgpu.scenes import only_image
from zarrgpu.slide import Slide
from zarrgpu.stores.local import LocalStore
from zarrgpu.stores.public import public_address

_HELD: Final = 4
"""Times a decoded shard that one in the works holds: read, transposed, its chunks, encoded."""

_SUMS: Final = 8
"""Times a shard that sums hold while it is averaged, besides what is averaged."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """An image to write: the source's, or one of labels, with the path of its group."""

    path: str
    image: Source
    levels: Sequence[Level]


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    options: ConvertOptions | None = None,
    quiet: bool = True,
    storage_options: dict[str, Any] | None = None,
) -> Path:
    """Write a slide, an OME-Zarr image, a NIfTI image or a Zarr array as OME-Zarr 0.5.

    Pixels are those that zarrgpu reads, bit by bit; coarser levels that are made are means. Killed
    and started again with the same arguments it goes on where it was. `output` appears when all of
    it is written, and not before.

    Parameters
    ----------
    source : path or URL
    output : path
        Local folder, usually ``NAME.zarr`` or ``NAME.ome.zarr``.
    options : ConvertOptions, optional
    quiet : bool
        Whether to show no progress on standard error; it is shown on terminals only.
    storage_options : dict, optional
        For fsspec, with a URL.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        If the source is no image, its axes are not known, or its tiles cannot be copied.
    StoreError
        If there is something at `output` and `overwrite` is not set, or if an interrupted run was
        of another source, a source that has changed since, or other options.
    MemoryBudgetError
        If one shard does not fit.
    MissingDependencyError
        Without zarr-python.
    """
    options = options or ConvertOptions()
    zarr = require_zarr()
    target = local_output(output)
    node = only_image(open_node(source, storage_options=storage_options))
    name = public_address(os.fsdecode(source))  # it is written to the output
    image = open_source(node, name, options.axes)
    if options.copy_tiles:
        jpeg_tiles.check_copyable(image)
    levels = plan_levels(image, options)
    parts = [_Part(path="", image=image, levels=levels)]
    for path, labels in label_sources(node, name, options):
        parts.append(
            _Part(
                path=path,
                image=labels,
                levels=label_levels(labels, parts[0].image, levels, options),
            )
        )
    workers = _workers(parts, options)
    files = _files(node, source)
    inside = [each.absolute() for each in files]
    if any(target != each and target.is_relative_to(each) for each in inside):
        raise RequestError(f"{str(target)!r} lies within the source; choose another place")
    state = fingerprint(files, _described(parts))
    identity = {"source": name, "fingerprint": state, "options": options.of_output()}
    try:
        _write(zarr, node, parts, workers, identity, target, options, quiet=quiet)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        msg = (
            f"{str(target)!r} cannot be written: {error}; what is done stays, start again to go on"
        )
        raise StoreError(msg) from error
    return target


def _write(
    zarr: Any,
    node: Any,
    parts: Sequence[_Part],
    workers: int,
    identity: dict[str, Any],
    target: Path,
    options: ConvertOptions,
    *,
    quiet: bool,
) -> None:
    """Write all; what may fail at once comes first."""
    partial = PartialOutput(target, identity, overwrite=options.overwrite)
    total = sum(math.prod(level.layout.shape) for part in parts for level in part.levels)
    progress = Progress(total, quiet=quiet)
    image = parts[0].image
    associated = image.associated if options.associated else {}
    icc_profile = node.icc_profile if isinstance(node, Slide) else None
    try:
        _drop_cut_off(partial.folder / "zarr.json")
        _drop_cut_off(partial.folder / "associated" / "zarr.json")
        root = zarr.open_group(partial.folder, mode="a", zarr_format=3)
        _write_extras(root, image, associated)
        for part in parts:
            group = _require_group(root, partial.folder, part.path)
            for level in part.levels:
                _write_level(group, partial, part, level, options, workers, progress)
        _write_metadata(root, parts, icc_profile, sorted(associated))
        if fingerprint(_files(node, image.name), _described(parts)) != identity["fingerprint"]:
            msg = f"{image.name!r} changed while it was converted: do it again, with --overwrite"
            raise StoreError(msg)
    except BaseException:
        partial.close()
        raise
    finally:
        progress.close()
    partial.finish()


def _write_metadata(
    root: Any, parts: Sequence[_Part], icc_profile: bytes | None, associated: Sequence[str]
) -> None:
    """Attributes of the images, and of the group of labels."""
    for part in parts:
        shapes = [level.layout.shape for level in part.levels]
        steps = [level.step for level in part.levels]
        own = own_metadata(part.image, *(() if part.path else (icc_profile, associated)))
        group = root[part.path] if part.path else root
        group.attrs.put({"ome": ome_metadata(part.image, shapes, steps), "zarrgpu": own})
    names = [part.path.removeprefix(f"{LABELS}/") for part in parts[1:]]
    if names:
        root[LABELS].attrs.put({"ome": {"version": "0.5", "labels": names}})


def _require_group(root: Any, folder: Path, path: str) -> Any:
    """Group at a path, and those above it."""
    group = root
    for name in path.split("/") if path else ():
        folder = folder / name
        _drop_cut_off(folder / "zarr.json")
        group = group.require_group(name)
    return group


def _drop_cut_off(document: Path) -> None:
    """Remove metadata whose writing was interrupted: it is written anew."""
    try:
        json.loads(document.read_bytes())
    except FileNotFoundError:
        return
    except ValueError:
        document.unlink()


def _workers(parts: Sequence[_Part], options: ConvertOptions) -> int:
    """Shards in the works at a time."""
    shard = max(int(_held_nbytes(part.image, level)) for part in parts for level in part.levels)
    arrays = [array for part in parts for array in part.image.arrays]
    chunk = 0 if options.copy_tiles else max(array.spec.chunk_nbytes for array in arrays)
    fit = options.memory_budget_bytes // (shard + chunk)
    if not fit:
        msg = (
            f"{parts[0].image.name!r}: a shard takes {shard} bytes in the works and a chunk of the "
            f"source {chunk}, memory_budget_bytes is {options.memory_budget_bytes}; choose smaller "
            "shards (--shard) or give more memory (--memory)"
        )
        raise MemoryBudgetError(msg)
    return min(options.num_threads or available_cores(), fit)


def _held_nbytes(image: Source, level: Level) -> int:
    """What a shard in the works holds at most."""
    shard = math.prod(level.layout.shard) * image.dtype.itemsize
    averaged = 2 ** len(level.halved) + _SUMS if level.halved else 0
    return shard * (_HELD + averaged)


def _write_level(
    group: Any,
    partial: PartialOutput,
    part: _Part,
    level: Level,
    options: ConvertOptions,
    workers: int,
    progress: Progress,
) -> None:
    """Write the shards of a level that are not done yet."""
    image, name, layout = part.image, str(level.number), level.layout
    path = join(part.path, name)
    folder = partial.folder / path
    _drop_cut_off(folder / "zarr.json")
    read = ReadOptions(memory_budget_bytes=options.memory_budget_bytes, num_threads=1)
    if options.copy_tiles:
        jpeg_tiles.create_tile_array(folder, image, layout)

        def write(coords: tuple[int, ...]) -> None:
            jpeg_tiles.write_tile_shard(folder, image, level.number, layout, coords)

    else:
        codec = codec_name(options.codec, image.dtype)
        array = group[name] if name in group else create_array(group, name, layout, image, codec)
        finer = _opened(folder.with_name(str(level.number - 1))) if level.step else None

        def write(coords: tuple[int, ...]) -> None:
            box = layout.box(coords)
            if finer is None:
                pixels = image.read(level.number, box, read)
            else:
                pixels = _halved(finer, box, image, level.halved, read)
            array[tuple(slice(*side) for side in box)] = pixels

    def finish(index: int) -> None:
        coords = layout.coords(index)
        # what an interrupted run left of it: zarr-python would read a shard at the edge again
        folder.joinpath("c", *map(str, coords)).unlink(missing_ok=True)
        write(coords)
        partial.mark(f"{path}/{index}")
        progress.add(_elements(layout.box(coords)))

    todo = []
    for index in range(layout.count):
        if f"{path}/{index}" in partial.done:
            progress.add(_elements(layout.box(layout.coords(index))), skipped=True)
        else:
            todo.append(index)
    _run(finish, todo, workers)


def _halved(
    finer: Array, box: Box, image: Source, halved: str, options: ReadOptions
) -> NDArray[Any]:
    """A box of a level, made from the level before it."""
    selection = tuple(
        slice(2 * first, min(2 * last, size)) if axis in halved else slice(first, last)
        for axis, (first, last), size in zip(image.axes, box, finer.shape, strict=True)
    )
    pixels = np.asarray(finer.read(selection, device="cpu", options=options))
    return halve(pixels, image.axes, halved, labels=image.labels)


def _run(work: Callable[[int], None], items: Sequence[int], workers: int) -> None:
    """Do all items, `workers` at a time; the first error, or an interrupt, stops the rest."""
    queue = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="zarrgpu-convert") as pool:
        running: set[Future[None]] = {pool.submit(work, item) for item in islice(queue, workers)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
            running |= {pool.submit(work, item) for item in islice(queue, len(finished))}


def _write_extras(group: Any, image: Source, associated: Any) -> None:
    """Associated images, axes (y, x, c), and a NIfTI header as NIfTI-Zarr has it."""
    for name, picture in sorted(associated.items()):
        folder = group.require_group("associated")
        folder.create_array(
            name,
            data=np.asarray(picture.read(..., device="cpu")),
            dimension_names=list(picture.dimension_names),
            overwrite=True,
        )
    if image.nifti is not None:
        data = np.frombuffer(image.nifti, np.uint8)
        group.create_array("nifti", data=data, chunks=data.shape, compressors=[], overwrite=True)


def _opened(folder: Path) -> Array:
    node = open_node(LocalStore(folder))
    assert isinstance(node, Array)
    return node


def _elements(box: Box) -> int:
    return math.prod(last - first for first, last in box)


def _files(node: Any, source: str | os.PathLike[str]) -> set[Path]:
    """Local files and folders that the source is made of."""
    path = Path(os.fsdecode(source)).expanduser()
    files = {path} if path.exists() else set()
    arrays = node.levels if isinstance(node, Slide) else (node,) if isinstance(node, Array) else ()
    for array in arrays:
        store, location = array.source.store, array.spec.location
        if isinstance(store, LocalStore) and isinstance(location, Manifest):
            keys = location.keys or (location.key,)
            files |= {Path(store.root) / key for key in keys}
    return {each for each in files if each.exists()}


def _described(parts: Sequence[_Part]) -> str:
    """What a source is, without its pixels: that a remote one has changed shows only here."""
    found: list[Any] = []
    for image in (part.image for part in parts):
        levels: list[Any] = [
            [list(array.shape), array.dtype.str, list(array.chunks), list(array.codecs)]
            for array in image.arrays
        ]
        for array in image.arrays:
            location = array.spec.location
            if isinstance(location, Manifest):
                keys = location.keys or (location.key,)
                levels.append([array.source.store.size(key) for key in keys])
        found.append([levels, image.axes, image.scale, dict(image.attributes)])
    return json.dumps(found, default=str)
