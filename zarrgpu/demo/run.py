"""Tell the whole story once: open, look, sample, plan, load, train, report.

Reads top to bottom like a script that a user would write; each step is one function and prints what
it did. Nothing here is needed by the library.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import zarrgpu as zg
from zarrgpu.demo import console, report
from zarrgpu.demo.inputs import make_inputs
from zarrgpu.demo.sample import Loaders, View, look, plan_one_batch, read_alone, sample
from zarrgpu.demo.train import Epoch, History, fit
from zarrgpu.errors import RequestError

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


def run_demo(config: DemoConfig) -> list[Path]:
    """Run the demo and return the folders of the reports.

    With a path there is one report, in `config.output`. Without one the demo makes a slide and an
    OME-Zarr image; the slide's report is in `config.output`, the image's in ``ome-zarr`` below it.
    """
    try:
        config.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot write a report to {str(config.output)!r}: {error}; choose another --output"
        raise RequestError(msg) from error
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
    view = look(slide, config.patch_size)
    loaders = sample(
        view,
        num_patches=config.num_patches,
        batch_size=config.batch_size,
        seed=config.seed,
        device=config.device,
    )
    plan = plan_one_batch(view, loaders, config.device)
    reading = read_alone(loaders)
    history = _train(view, loaders, config)
    names = _report(view, loaders, history, output)
    numbers = {
        "path": path,
        "zarrgpu": zg.__version__,
        "config": asdict(config),
        "image": _describe(slide),
        "patch_px": view.patch_px,
        "foreground_fraction": float(view.mask.mean()),
        "validation_side": view.split.side,
        "validation_boundary": view.split.boundary,
        "plan": plan,
        "reading": reading,
        "training": _training_numbers(history),
    }
    report.write_numbers(output / "report.json", numbers)
    console.fact("folder", str(output))
    console.fact("files", ", ".join([*names, "report.json"]))
    return output


def _open(path: str) -> zg.Slide:
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
    name = Path(slide.spec.source).name
    size = (view.patch_px, view.patch_px)
    width, height = slide.dimensions
    # Not more boxes than can be told apart: their area is about that of the image.
    boxes = int(np.clip(1.2 * width * height / (size[0] * size[1]), 8, report.BOXES_DRAWN))
    train = np.unique(loaders.locations[: boxes * 2 // 3], axis=0)
    validation = np.unique(after.locations[: boxes // 3], axis=0)
    drawn, total = len(train) + len(validation), len(loaders.locations) + len(after.locations)
    overview = report.Overview(
        channels=view.display.channels,
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
        split=view.split,
        mpp=slide.mpp[0],
    )
    report.write_thumbnail(output / "thumbnail.png", overview)
    # Evenly spaced in rank, so that the whole range from sparse to dense is seen.
    count = min(MOSAIC_PATCHES, after.scores.size)
    chosen = np.argsort(after.scores, kind="stable")
    chosen = chosen[np.linspace(0, chosen.size - 1, count).astype(np.int64)]
    patches = slide.read_regions(after.locations[chosen], 0, size, device="cpu")
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


def _describe(slide: zg.Slide) -> dict[str, Any]:
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
        "vendor": slide.spec.vendor,
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


def _mpp_text(slide: zg.Slide) -> str:
    mpp = slide.mpp[0]
    return f"{mpp:g} µm/px" if mpp else "pixel size not stated"
