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
from zarrgpu.convert.downsample import halve, halved_shape
from zarrgpu.convert.layout import Layout, codec_name, create_array, make_layout, require_zarr
from zarrgpu.convert.metadata import ome_metadata, own_metadata
from zarrgpu.convert.progress import Progress
from zarrgpu.convert.settings import ConvertOptions
from zarrgpu.convert.source import Box, Source, open_source
from zarrgpu.convert.state import PartialOutput, fingerprint, local_output
from zarrgpu.devices.host import available_cores
from zarrgpu.errors import (
    MemoryBudgetError,
    RequestError,
    StoreError,
    UnsupportedFormatError,
)
from zarrgpu.model import Manifest, ReadOptions
from zarrgpu.opening import open as open_node
from zarrgpu.scenes import only_image
from zarrgpu.slide import Slide
from zarrgpu.stores.local import LocalStore

_HELD: Final = 4
"""Times a decoded shard that one in the works holds: read, transposed, its chunks, encoded."""

_SUMS: Final = 8
"""Times a shard that sums hold while it is averaged, besides what is averaged."""

_MAX_LEVELS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Level:
    """One level to write; `halved` names the axes of one that is made by averaging."""

    number: int
    layout: Layout
    halved: str
    step: tuple[int, ...] | None


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
    name = os.fspath(source)
    image = open_source(node, name, options.axes)
    if options.copy_tiles:
        jpeg_tiles.check_copyable(image)
    levels = _levels(image, options)
    workers = _workers(image, levels, options)
    files = _files(node, source)
    inside = [each.absolute() for each in files]
    if any(target != each and target.is_relative_to(each) for each in inside):
        raise RequestError(f"{str(target)!r} lies within the source; choose another place")
    state = fingerprint(files, _described(image))
    identity = {"source": name, "fingerprint": state, "options": options.of_output()}
    try:
        _write(zarr, node, image, levels, workers, identity, target, options, quiet=quiet)
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
    image: Source,
    levels: Sequence[_Level],
    workers: int,
    identity: dict[str, Any],
    target: Path,
    options: ConvertOptions,
    *,
    quiet: bool,
) -> None:
    """Write all; what may fail at once comes first."""
    partial = PartialOutput(target, identity, overwrite=options.overwrite)
    progress = Progress(sum(math.prod(level.layout.shape) for level in levels), quiet=quiet)
    try:
        for folder in ("", "associated", *(str(level.number) for level in levels)):
            _drop_cut_off(partial.folder / folder / "zarr.json")
        group = zarr.open_group(partial.folder, mode="a", zarr_format=3)
        associated = image.associated if options.associated else {}
        _write_extras(group, image, associated)
        for level in levels:
            _write_level(group, partial, image, level, options, workers, progress)
        icc_profile = node.icc_profile if isinstance(node, Slide) else None
        shapes = [level.layout.shape for level in levels]
        group.attrs.put(
            {
                "ome": ome_metadata(image, shapes, [level.step for level in levels]),
                "zarrgpu": own_metadata(image, icc_profile, sorted(associated)),
            }
        )
        if fingerprint(_files(node, image.name), _described(image)) != identity["fingerprint"]:
            msg = f"{image.name!r} changed while it was converted: do it again, with --overwrite"
            raise StoreError(msg)
    except BaseException:
        partial.close()
        raise
    finally:
        progress.close()
    partial.finish()


def _drop_cut_off(document: Path) -> None:
    """Remove metadata whose writing was interrupted: it is written anew."""
    try:
        json.loads(document.read_bytes())
    except FileNotFoundError:
        return
    except ValueError:
        document.unlink()


def _levels(image: Source, options: ConvertOptions) -> list[_Level]:
    """Levels of the source, and those to be made."""

    def layout(number: int, shape: tuple[int, ...]) -> Layout:
        if options.copy_tiles:
            return jpeg_tiles.tile_layout(image, number, options.shard_px)
        return make_layout(image, shape, options)

    generate = options.pyramid == "generate" or (
        options.pyramid == "auto" and len(image.arrays) == 1 and not options.copy_tiles
    )
    kept = 1 if generate else len(image.arrays)
    for k, array in enumerate(image.arrays[:kept]):
        if array.dtype != image.arrays[0].dtype:
            msg = (
                f"{image.name!r}: level {k} is of {array.dtype}, and level 0 of "
                f"{image.arrays[0].dtype}; levels can be made instead (--pyramid generate)"
            )
            raise UnsupportedFormatError(msg)
    levels = [
        _Level(number=k, layout=layout(k, image.shape(k)), halved="", step=None)
        for k in range(kept)
    ]
    if not generate:
        return levels
    chunk = dict(zip(image.axes, levels[0].layout.chunk, strict=True))
    step = (1,) * len(image.axes)
    while len(levels) < _MAX_LEVELS:
        shape = levels[-1].layout.shape
        sizes = dict(zip(image.axes, shape, strict=True))
        long = [a for a in "zyx" if a in sizes and chunk[a] > 1 and sizes[a] > chunk[a]]
        if not long:
            break
        # both axes of a plane at once, so that pixels stay square
        halved = "yx" + ("z" if "z" in long else "")
        step = tuple(2 * s if a in halved else s for s, a in zip(step, image.axes, strict=True))
        shape = halved_shape(shape, image.axes, halved)
        made = layout(len(levels), shape)
        levels.append(_Level(number=len(levels), layout=made, halved=halved, step=step))
    return levels


def _workers(image: Source, levels: Sequence[_Level], options: ConvertOptions) -> int:
    """Shards in the works at a time."""
    shard = max(int(_held_nbytes(image, level)) for level in levels)
    chunk = 0 if options.copy_tiles else max(array.spec.chunk_nbytes for array in image.arrays)
    fit = options.memory_budget_bytes // (shard + chunk)
    if not fit:
        msg = (
            f"{image.name!r}: a shard takes {shard} bytes in the works and a chunk of the source "
            f"{chunk}, memory_budget_bytes is {options.memory_budget_bytes}; choose smaller shards "
            "(--shard) or give more memory (--memory)"
        )
        raise MemoryBudgetError(msg)
    return min(options.num_threads or available_cores(), fit)


def _held_nbytes(image: Source, level: _Level) -> int:
    """What a shard in the works holds at most."""
    shard = math.prod(level.layout.shard) * image.dtype.itemsize
    averaged = 2 ** len(level.halved) + _SUMS if level.halved else 0
    return shard * (_HELD + averaged)


def _write_level(
    group: Any,
    partial: PartialOutput,
    image: Source,
    level: _Level,
    options: ConvertOptions,
    workers: int,
    progress: Progress,
) -> None:
    """Write the shards of a level that are not done yet."""
    path, layout = str(level.number), level.layout
    folder = partial.folder / path
    read = ReadOptions(memory_budget_bytes=options.memory_budget_bytes, num_threads=1)
    if options.copy_tiles:
        jpeg_tiles.create_tile_array(folder, image, layout)

        def write(coords: tuple[int, ...]) -> None:
            jpeg_tiles.write_tile_shard(folder, image, level.number, layout, coords)

    else:
        codec = codec_name(options.codec, image.dtype)
        array = group[path] if path in group else create_array(group, path, layout, image, codec)
        finer = _opened(partial.folder / str(level.number - 1)) if level.halved else None

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
    path = Path(os.fspath(source)).expanduser()
    files = {path} if path.exists() else set()
    arrays = node.levels if isinstance(node, Slide) else (node,) if isinstance(node, Array) else ()
    for array in arrays:
        store, location = array.source.store, array.spec.location
        if isinstance(store, LocalStore) and isinstance(location, Manifest):
            keys = location.keys or (location.key,)
            files |= {Path(store.root) / key for key in keys}
    return {each for each in files if each.exists()}


def _described(image: Source) -> str:
    """What a source is, without its pixels: that a remote one has changed shows only here."""
    levels: list[list[Any]] = [
        [list(array.shape), array.dtype.str, list(array.chunks), list(array.codecs)]
        for array in image.arrays
    ]
    for array in image.arrays:
        location = array.spec.location
        if isinstance(location, Manifest):
            keys = location.keys or (location.key,)
            levels.append([array.source.store.size(key) for key in keys])
    return json.dumps([levels, image.axes, image.scale, dict(image.attributes)], default=str)
