"""Tell the whole story once: open, look, sample, plan, load, train, report.

Reads top to bottom like a script that a user would write; each step is one function and prints what
it did. Nothing here is needed by the library.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import zarrgpu as zg
from zarrgpu.demo import console, report
from zarrgpu.demo.display import Display
from zarrgpu.demo.foreground import density_map, foreground_mask, is_brightfield
from zarrgpu.demo.inputs import make_inputs
from zarrgpu.demo.labels import Labeller, Split, split_by_place
from zarrgpu.demo.train import MIN_PATCH_PX, Epoch, History, fit
from zarrgpu.errors import SelectionError, UnsupportedFormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zarrgpu.demo.foreground import Map, Mask
    from zarrgpu.demo.labels import Locations

THUMBNAIL_PX = 1024
MOSAIC_PATCHES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """What the demo is asked to do.

    Attributes
    ----------
    path : str or None
        Image to open; None makes two of the demo's own.
    output : Path
        Folder of the report.
    device : str or None
        None takes a CUDA device if there is one.
    epochs, batch_size : int
    patch_size : int or None
        Side in level-0 pixels; None chooses by the size of the image.
    num_patches : int
        Patches of a training epoch; a quarter as many validate.
    input_px : int
        Side of the demo's own images.
    seed : int
    """

    path: str | None = None
    output: Path = Path("demo-report")
    device: str | None = None
    epochs: int = 4
    batch_size: int = 32
    patch_size: int | None = None
    num_patches: int = 640
    input_px: int = 4096
    seed: int = 7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """An opened slide and what its thumbnail says about it."""

    slide: Any
    thumbnail: NDArray[Any]
    mask: Mask
    density: Map
    display: Display
    split: Split
    patch_px: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaders:
    """Training and validation batches, and the places of the first training epoch."""

    train: Any
    validation: Any
    locations: Locations
    label: Labeller


def run_demo(config: DemoConfig) -> list[Path]:
    """Run the demo and return the folders of the reports.

    With a path there is one report, in `config.output`. Without one the demo makes a slide and an
    OME-Zarr image; the slide's report is in `config.output`, the image's in ``ome-zarr`` below it.
    """
    config.output.mkdir(parents=True, exist_ok=True)
    if config.path is not None:
        return [_run_one(config.path, config.output, config)]
    console.title("no path given: the demo makes its own input")
    began = time.perf_counter()
    slide, image = make_inputs(config.output / "input", size_px=config.input_px, seed=config.seed)
    console.fact("slide", f"{slide}  (Aperio-style SVS, JPEG)")
    console.fact("image", f"{image}  (OME-Zarr 0.5, sharded, zstd)")
    console.fact("ready in", f"{time.perf_counter() - began:.1f} s")
    return [
        _run_one(str(slide), config.output, config),
        _run_one(str(image), config.output / "ome-zarr", config),
    ]


def _run_one(path: str, output: Path, config: DemoConfig) -> Path:
    """Tell the story of one image; return the folder of its report."""
    output.mkdir(parents=True, exist_ok=True)
    slide = _open(path)
    view = _look(slide, config)
    loaders = _sample(view, config)
    plan = _plan(view, loaders, config)
    reading = _read_alone(loaders)
    history = _train(view, loaders, config)
    names = _report(view, loaders, history, output)
    numbers = {
        "path": path,
        "zarrgpu": zg.__version__,
        "config": asdict(config),
        "image": _describe(slide),
        "patch_px": view.patch_px,
        "foreground_fraction": float(view.mask.mean()),
        "split_boundary": view.split.boundary,
        "plan": plan,
        "reading": reading,
        "training": _training_numbers(history),
    }
    report.write_numbers(output / "report.json", numbers)
    console.fact("folder", str(output))
    console.fact("files", ", ".join([*names, "report.json"]))
    return output


def _open(path: str) -> Any:
    console.title(f"open {path}")
    began = time.perf_counter()
    slide = zg.open_slide(path)
    seconds = time.perf_counter() - began
    facts = _describe(slide)
    width, height = slide.dimensions
    console.fact("size", f"{width} x {height} px, {slide.channel_count} channel(s) {slide.dtype}")
    console.fact("format", f"{facts['vendor']}, axes {' '.join(slide.axes)}")
    console.fact("pixel size", _mpp_text(slide))
    for number, level in enumerate(facts["levels"]):
        layout = f"chunks {level['chunks']}"
        if level["shards"]:
            layout += f" in shards {level['shards']}"
        codecs = " + ".join(level["codecs"]) or "uncompressed"
        console.fact(f"level {number}", f"{level['shape']}, {layout}, {codecs}")
    if slide.associated_images:
        console.fact("beside it", ", ".join(sorted(slide.associated_images)))
    console.fact("opened in", f"{1000 * seconds:.1f} ms")
    return slide


def _look(slide: Any, config: DemoConfig) -> View:
    """Thumbnail, foreground, and where to train and to validate."""
    patch_px = _choose_patch_size(slide.dimensions, config.patch_size)
    console.title("foreground")
    began = time.perf_counter()
    thumbnail = _to_host(slide.get_thumbnail((THUMBNAIL_PX, THUMBNAIL_PX)))
    seconds = time.perf_counter() - began
    mask = foreground_mask(thumbnail)
    split = split_by_place(mask, patch_fraction=patch_px / slide.dimensions[0])
    h, w = mask.shape
    console.fact("thumbnail", f"{w} x {h} px in {1000 * seconds:.0f} ms")
    kind = "bright field, Otsu on saturation" if is_brightfield(thumbnail) else "Otsu on intensity"
    console.fact("foreground", f"{mask.mean():.0%} of the image ({kind})")
    if split.boundary is None:
        console.fact("split", "none: too small to cut, validation sees the training ground")
    else:
        console.fact("split", f"by place: trained left of {split.boundary:.0%}, validated right")
    return View(
        slide=slide,
        thumbnail=thumbnail,
        mask=mask,
        density=density_map(thumbnail),
        display=Display.fit(thumbnail, _omero_channels(slide)),
        split=split,
        patch_px=patch_px,
    )


def _sample(view: View, config: DemoConfig) -> Loaders:
    """Samplers over both masks, labels from the first epoch's places, and the loaders."""
    console.title("sample")
    width, height = view.slide.dimensions
    places = (width - view.patch_px + 1) * (height - view.patch_px + 1)
    count = min(config.num_patches, max(places, config.batch_size))
    train, validation = (
        zg.RandomPatches(
            view.slide, size=view.patch_px, mask=mask, num_patches=number, seed=config.seed + offset
        )
        for offset, mask, number in (
            (0, view.split.train, count),
            (1, view.split.validation, max(count // 4, 1)),
        )
    )
    locations = train.epoch_patches(0).location
    label = Labeller.fit(
        view.density,
        dimensions=view.slide.dimensions,
        size=(view.patch_px, view.patch_px),
        locations=locations,
    )
    mean, std = _normalization(view)
    loaders = [
        zg.PatchLoader(
            sampler,
            batch_size=config.batch_size,
            layout="NCHW",
            dtype="float32",
            normalize=(mean, std),
            device=config.device,
        )
        for sampler in (train, validation)
    ]
    console.fact("patches", f"{count} to train, {len(validation)} to validate, each epoch")
    console.fact("patch", f"{view.patch_px} x {view.patch_px} px of level 0, seed {config.seed}")
    dense = label(locations).mean()
    console.fact("label", f"denser than the median patch or not: {dense:.0%} are")
    if dense == 0:
        console.note("all patches look alike: there is nothing to tell apart in this image")
    return Loaders(train=loaders[0], validation=loaders[1], locations=locations, label=label)


def _plan(view: View, loaders: Loaders, config: DemoConfig) -> str:
    """Say what one batch would cost, before anything is read."""
    console.title("plan of one batch")
    size = (view.patch_px, view.patch_px)
    began = time.perf_counter()
    plan = view.slide.plan_regions(loaders.locations[: config.batch_size], 0, size)
    seconds = time.perf_counter() - began
    text = str(plan.explain())
    console.block(text)
    console.fact("planned in", f"{1000 * seconds:.1f} ms")
    return text


def _read_alone(loaders: Loaders) -> dict[str, Any]:
    """Time an epoch of the loader with nothing else to do."""
    console.title("load an epoch, without training")
    stats = loaders.train.stats
    before = (stats.patches, stats.decoded_bytes, stats.fetched_bytes, stats.chunks_decoded)
    began = time.perf_counter()
    batches = sum(1 for _ in loaders.train)
    seconds = time.perf_counter() - began
    after = (stats.patches, stats.decoded_bytes, stats.fetched_bytes, stats.chunks_decoded)
    patches, decoded, fetched, chunks = (b - a for a, b in zip(before, after, strict=True))
    numbers = {
        "device": str(loaders.train.device),
        "batches": batches,
        "patches": patches,
        "seconds": seconds,
        "patches_per_second": patches / seconds,
        "decoded_megabytes_per_second": decoded / seconds / 1e6,
        "decoded_bytes": decoded,
        "fetched_bytes": fetched,
        "chunks_decoded": chunks,
    }
    console.fact("device", numbers["device"])
    console.fact("read", f"{patches} patches in {batches} batches in {seconds:.2f} s")
    console.fact("rate", f"{patches / seconds:,.0f} patches/s")
    console.fact("decoded", f"{decoded / seconds / 1e6:,.0f} MB/s (stored type, {chunks} chunks)")
    console.fact("fetched", f"{fetched / 1e6:,.1f} MB encoded")
    return numbers


def _train(view: View, loaders: Loaders, config: DemoConfig) -> History:
    console.title("train")

    def say(number: int, epoch: Epoch) -> None:
        console.fact(
            f"epoch {number}",
            f"loss {epoch.train_loss:.4f}   validation loss {epoch.validation_loss:.4f}   "
            f"accuracy {epoch.validation_accuracy:.1%}   "
            f"{epoch.patches / epoch.seconds:,.0f} patches/s",
        )

    history = fit(
        loaders.train,
        loaders.validation,
        loaders.label,
        channels=view.slide.channel_count,
        patch_px=view.patch_px,
        epochs=config.epochs,
        seed=config.seed,
        on_epoch=say,
    )
    console.fact("model", f"{history.parameters:,} parameters, trained on {history.device}")
    console.fact(
        "accuracy",
        f"{history.before.accuracy:.1%} before, {history.after.accuracy:.1%} after, "
        f"{history.after.baseline:.1%} by always naming the commoner class",
    )
    return history


def _report(view: View, loaders: Loaders, history: History, output: Path) -> list[str]:
    """Draw the three pictures; returns their names."""
    console.title("report")
    slide, after = view.slide, history.after
    name = Path(str(slide.source)).name
    size = (view.patch_px, view.patch_px)
    train, validation = loaders.locations[: report.BOXES_DRAWN * 2 // 3], after.locations
    validation = validation[: report.BOXES_DRAWN // 3]
    width, height = slide.dimensions
    drawn, total = len(train) + len(validation), len(loaders.locations) + len(after.locations)
    overview = report.Overview(
        picture=view.display.render(view.thumbnail),
        mask=view.mask,
        title=name,
        subtitle=f"{width} x {height} px, {_mpp_text(slide)}, {drawn} of {total} patches drawn",
        dimensions=slide.dimensions,
        size=size,
        train=train,
        validation=validation,
        train_labels=loaders.label(train),
        validation_labels=loaders.label(validation),
        boundary=view.split.boundary,
        mpp=slide.mpp[0],
    )
    report.write_thumbnail(output / "thumbnail.png", overview)
    # Evenly spaced in rank, so that the whole range from sparse to dense is seen.
    count = min(MOSAIC_PATCHES, after.scores.size)
    chosen = np.argsort(after.scores, kind="stable")
    chosen = chosen[np.linspace(0, chosen.size - 1, count).astype(np.int64)]
    patches = _to_host(slide.read_regions(after.locations[chosen], 0, size))
    report.write_mosaic(
        output / "patches.png",
        [view.display.render(patch) for patch in patches],
        after.labels[chosen],
        after.scores[chosen],
        subtitle=f"{name}; below each patch: the model's probability that it is dense",
    )
    subtitle = f"{name}; {history.parameters:,} parameters on {history.device}"
    report.write_loss(output / "loss.png", history, subtitle=subtitle)
    return ["thumbnail.png", "patches.png", "loss.png"]


def _choose_patch_size(dimensions: tuple[int, int], wanted: int | None) -> int:
    """Side of a patch: `wanted`, or a power of two, at most an eighth of the image and 256."""
    side = min(dimensions)
    if side < MIN_PATCH_PX:
        msg = f"the demo needs an image of at least {MIN_PATCH_PX} px a side, got {dimensions}"
        raise UnsupportedFormatError(msg)
    if wanted is None:
        return int(np.clip(1 << max(side // 8, 1).bit_length() - 1, MIN_PATCH_PX, 256))
    if not MIN_PATCH_PX <= wanted <= side:
        msg = f"patch size {wanted} px does not fit: expected {MIN_PATCH_PX} to {side} px"
        raise SelectionError(msg)
    return wanted


def _normalization(view: View) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over the foreground, in stored units."""
    seen = view.mask if view.mask.any() else np.ones_like(view.mask)
    pixels = np.nan_to_num(view.thumbnail[seen].astype(np.float64))
    std = pixels.std(axis=0)
    return pixels.mean(axis=0).tolist(), np.where(std > 0, std, 1.0).tolist()


def _describe(slide: Any) -> dict[str, Any]:
    """Facts of an opened slide, ready for JSON."""
    levels = [
        {
            "shape": list(level.shape),
            "chunks": list(level.chunks),
            "shards": list(level.shards) if level.shards else None,
            "codecs": list(level.codecs),
            "dtype": str(level.dtype),
        }
        for level in slide.levels
    ]
    return {
        "vendor": slide.properties.get("openslide.vendor", "ome-zarr"),
        "dimensions": list(slide.dimensions),
        "axes": list(slide.axes),
        "channels": slide.channel_count,
        "mpp": list(slide.mpp),
        "levels": levels,
    }


def _training_numbers(history: History) -> dict[str, Any]:
    return {
        "device": history.device,
        "parameters": history.parameters,
        "accuracy_before": history.before.accuracy,
        "accuracy_after": history.after.accuracy,
        "accuracy_of_commoner_class": history.after.baseline,
        "epochs": [asdict(epoch) for epoch in history.epochs],
        "step_losses": list(history.step_losses),
    }


def _omero_channels(slide: Any) -> list[dict[str, Any]]:
    """``omero.channels`` of an OME-Zarr image; empty where there are none."""
    return [dict(channel) for channel in json.loads(slide.properties.get("omero.channels", "[]"))]


def _mpp_text(slide: Any) -> str:
    mpp = slide.mpp[0]
    return f"{mpp:g} µm/px" if mpp else "pixel size not stated"


def _to_host(array: Any) -> NDArray[Any]:
    """NumPy array of an array on either device."""
    return np.asarray(array.get() if hasattr(array, "get") else array)
