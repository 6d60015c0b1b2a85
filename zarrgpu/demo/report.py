"""Draw the report: three pictures and their numbers, readable without the code.

Nothing here reads an image or knows where it came from; `run` hands over what it gathered.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from zarrgpu.demo.labels import CLASS_NAMES
from zarrgpu.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from zarrgpu.demo.display import Color, Image
    from zarrgpu.demo.labels import Locations, Split
    from zarrgpu.demo.train import History

Axes: TypeAlias = Any
"""A matplotlib Axes; matplotlib is optional."""

CLASS_COLORS = ("#2196c9", "#e4572e")
INK, FAINT = "#22303c", "#8a96a3"
BOXES_DRAWN = 160
DPI = 110


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overview:
    """What `thumbnail.png` shows.

    Attributes
    ----------
    picture : uint8 array of shape (h, w, 3)
    channels : tuple of (str, (float, float, float))
        Name and colour of each channel that `picture` mixes; empty for a photograph.
    mask : bool array of shape (h, w)
        The foreground; its outline is drawn.
    title, subtitle : str
    dimensions : tuple of int
        Level-0 width and height.
    size : tuple of int
        Width and height of a patch in the level-0 frame.
    train, validation : int64 arrays of shape (n, 2)
        Level-0 x, y of patches.
    train_labels, validation_labels : int64 arrays of shape (n,)
    split : Split
        Where the validation ground begins.
    mpp : float or None
        Micrometres per level-0 pixel in x; the scale bar needs it.
    """

    picture: Image
    channels: tuple[tuple[str, Color], ...]
    mask: NDArray[np.bool_]
    title: str
    subtitle: str
    dimensions: tuple[int, int]
    size: tuple[int, int]
    train: Locations
    validation: Locations
    train_labels: NDArray[np.int64]
    validation_labels: NDArray[np.int64]
    split: Split
    mpp: float | None


def write_thumbnail(path: Path, overview: Overview) -> None:
    """Draw the thumbnail with the foreground's outline and the sampled boxes."""
    from matplotlib.lines import Line2D

    h, w = overview.picture.shape[:2]
    scale = min(8.6 / w, 7.4 / h)
    figure = _figure(w * scale + 0.6, h * scale + 1.75)
    height = h * scale / (h * scale + 1.75)
    axes = figure.add_axes(
        (0.3 / (w * scale + 0.6), 0.70 / (h * scale + 1.75), 1 - 0.6 / (w * scale + 0.6), height)
    )
    _headline(figure, overview.title, overview.subtitle)
    axes.imshow(overview.picture, extent=(0, *overview.dimensions, 0), interpolation="antialiased")
    _draw_foreground(axes, overview)
    _draw_boxes(axes, overview)
    handles = [
        Line2D([], [], color=CLASS_COLORS[0], label=f"{CLASS_NAMES[0]} patch"),
        Line2D([], [], color=CLASS_COLORS[1], label=f"{CLASS_NAMES[1]} patch"),
        Line2D([], [], color=FAINT, linestyle=(0, (2, 1.2)), label="dashed: validation"),
        Line2D([], [], color="#37b36b", label="foreground"),
    ]
    if overview.split.side is not None:
        upright = overview.split.side in ("left", "right")
        draw, length = (axes.axvline, 0) if upright else (axes.axhline, 1)
        at = overview.split.boundary * overview.dimensions[length]
        draw(at, color=FAINT, linewidth=1.2, linestyle=":")
    figure.legend(
        handles=handles, loc="lower center", ncols=4, frameon=False, fontsize=9, labelcolor=INK
    )
    _scale_bar(axes, overview.dimensions, overview.mpp)
    _name_channels(axes, overview.channels)
    _bare(axes)
    figure.savefig(path, dpi=DPI)


def _draw_foreground(axes: Axes, overview: Overview) -> None:
    """Outline the foreground, where that is a part of the image."""
    if not overview.mask.any() or overview.mask.all():
        return
    y, x = (np.arange(n) + 0.5 for n in overview.mask.shape)
    width0, height0 = overview.dimensions
    axes.contour(
        x * width0 / overview.mask.shape[1],
        y * height0 / overview.mask.shape[0],
        overview.mask,
        levels=[0.5],
        colors=["#37b36b"],
        linewidths=[1.1],
    )


def _draw_boxes(axes: Axes, overview: Overview) -> None:
    """Outline the sampled patches in the colours of their classes; dashed for the validation."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    for places, labels, dashes in (
        (overview.train, overview.train_labels, "solid"),
        (overview.validation, overview.validation_labels, (0, (2, 1.2))),
    ):
        for value, color in enumerate(CLASS_COLORS):
            boxes = [Rectangle((x, y), *overview.size) for x, y in places[labels == value].tolist()]
            axes.add_collection(
                PatchCollection(
                    boxes,
                    path_effects=[_outline(3.0)],
                    facecolor="none",
                    edgecolor=color,
                    linewidth=1.5,
                    linestyle=dashes,
                )
            )


def write_mosaic(
    path: Path,
    patches: Sequence[Image],
    labels: NDArray[np.int64],
    scores: NDArray[np.float32],
    *,
    subtitle: str,
    columns: int = 8,
) -> None:
    """Draw validation patches from the sparsest to the densest, as the model ranks them.

    Parameters
    ----------
    patches : sequence of uint8 arrays of shape (h, w, 3)
    labels, scores : arrays of shape (n,)
        True class, and the model's probability of class 1.
    """
    from matplotlib.patches import Patch

    rows = -(-len(patches) // columns)
    figure = _figure(1.32 * columns + 0.4, 1.5 * rows + 1.5)
    _headline(figure, "validation patches, ranked by the model", subtitle)
    total = 1.5 * rows + 1.5
    grid = figure.add_gridspec(
        rows,
        columns,
        left=0.02,
        right=0.98,
        bottom=0.55 / total,
        top=1 - 0.95 / total,
        wspace=0.08,
        hspace=0.22,
    )
    for index, rank in enumerate(np.argsort(scores, kind="stable").tolist()):
        axes = figure.add_subplot(grid[index // columns, index % columns])
        axes.imshow(
            patches[rank], interpolation="nearest" if patches[rank].shape[0] < 64 else "antialiased"
        )
        _bare(axes, color=CLASS_COLORS[int(labels[rank])], width=3)
        wrong = (scores[rank] > 0.5) != labels[rank]
        axes.set_xlabel(
            f"{scores[rank]:.2f}" + ("  wrong" if wrong else ""),
            fontsize=8,
            labelpad=2,
            color=CLASS_COLORS[1] if wrong else FAINT,
            fontweight="bold" if wrong else "normal",
        )
    handles = [
        Patch(facecolor=c, label=f"{n} by the thumbnail")
        for c, n in zip(CLASS_COLORS, CLASS_NAMES, strict=True)
    ]
    figure.legend(
        handles=handles, loc="lower center", ncols=2, frameon=False, fontsize=9, labelcolor=INK
    )
    figure.savefig(path, dpi=DPI)


def write_loss(path: Path, history: History, *, subtitle: str) -> None:
    """Draw the loss of every step and of the validation, and the validation's accuracy."""
    figure = _figure(9.6, 4.4)
    _headline(figure, "training", subtitle)
    left, right = (figure.add_axes((x, 0.15, w, 0.60)) for x, w in ((0.07, 0.54), (0.69, 0.28)))
    losses = np.array(history.step_losses)
    steps = np.arange(1, losses.size + 1)
    ends = np.arange(len(history.epochs) + 1) * (losses.size / max(len(history.epochs), 1))
    left.plot(steps, losses, color=CLASS_COLORS[0], alpha=0.3, linewidth=1, label="each step")
    left.plot(steps, _smooth(losses), color=CLASS_COLORS[0], linewidth=2, label="training")
    validation = [history.before.loss, *(e.validation_loss for e in history.epochs)]
    left.plot(
        ends, validation, "o-", color=CLASS_COLORS[1], linewidth=2, markersize=5, label="validation"
    )
    left.set_ylim(0, 1.08 * max(1e-3, np.nanmax([*validation, *losses])))
    left.set_xlabel("optimizer step")
    left.set_ylabel("cross-entropy")
    left.legend(frameon=False, fontsize=9, labelcolor=INK)
    accuracy = [history.before.accuracy, *(e.validation_accuracy for e in history.epochs)]
    right.plot(
        range(len(accuracy)), accuracy, "o-", color=CLASS_COLORS[1], linewidth=2, markersize=5
    )
    right.axhline(history.after.baseline, color=FAINT, linestyle="--", linewidth=1)
    right.text(
        0.99,
        history.after.baseline - 0.015,
        "always the commoner class",
        transform=right.get_yaxis_transform(),
        ha="right",
        va="top",
        fontsize=8,
        color=FAINT,
    )
    right.annotate(
        f"{accuracy[-1]:.1%}",
        (len(accuracy) - 1, accuracy[-1]),
        (0, -14),
        textcoords="offset points",
        ha="right",
        va="top",
        color=CLASS_COLORS[1],
        fontweight="bold",
    )
    right.set_ylim(0, 1.05)
    right.set_xlabel("epoch")
    right.set_ylabel("validation accuracy")
    right.xaxis.get_major_locator().set_params(integer=True)
    for axes in (left, right):
        _plain(axes)
    figure.savefig(path, dpi=DPI)


def write_numbers(path: Path, numbers: Mapping[str, Any]) -> None:
    """Write the report's numbers as JSON."""
    path.write_text(json.dumps(numbers, indent=2, default=_jsonable) + "\n", encoding="utf-8")


def _jsonable(value: object) -> object:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return str(value)


def _figure(width: float, height: float) -> Any:
    """Figure on the Agg canvas, without pyplot: no display, no global state."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = "the demo draws its report with matplotlib: pip install 'zarrgpu[demo]'"
        raise MissingDependencyError(msg) from error
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _headline(figure: Any, title: str, subtitle: str) -> None:
    inch = 1 / figure.get_figheight()
    figure.text(0.02, 1 - 0.18 * inch, title, fontsize=14, fontweight="bold", color=INK, va="top")
    figure.text(0.02, 1 - 0.52 * inch, subtitle, fontsize=9.5, color=FAINT, va="top")


def _bare(axes: Axes, *, color: str = "#d4dae0", width: float = 1) -> None:
    """Frame without ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=color, linewidth=width)


def _plain(axes: Axes) -> None:
    """Light axes of a curve."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c3cbd3")
    axes.tick_params(colors=FAINT, labelsize=8.5)
    axes.grid(visible=True, axis="y", color="#eef1f4")
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=9.5)


def _scale_bar(axes: Axes, dimensions: tuple[int, int], mpp: float | None) -> None:
    """Bar of a round length, about a fifth of the width."""
    if not mpp:
        return
    width, height = dimensions
    target = width * mpp / 5
    decade = 10 ** np.floor(np.log10(target))
    length = decade * max(step for step in (1, 2, 5) if step * decade <= target)
    pixels = length / mpp
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    x, y = 0.03 * width, 0.965 * height
    shade = [_outline()]
    axes.plot(
        [x, x + pixels], [y, y], color=INK, linewidth=3, solid_capstyle="butt", path_effects=shade
    )
    axes.text(
        x + pixels / 2,
        y - 0.012 * height,
        text,
        ha="center",
        va="bottom",
        color=INK,
        fontsize=9,
        path_effects=shade,
    )


def _name_channels(axes: Axes, channels: Sequence[tuple[str, Color]]) -> None:
    """Write the channels' names in their colours, from the upper left down."""
    for row, (name, color) in enumerate(channels):
        axes.text(
            0.015,
            0.985 - 0.032 * row,
            name,
            transform=axes.transAxes,
            va="top",
            color=color,
            fontsize=9.5,
            fontweight="bold",
            path_effects=[_outline(2.5, "#10161c")],
        )


def _outline(width: float = 4, color: str = "white") -> Any:
    """Halo, so that ink reads on any picture."""
    from matplotlib.patheffects import withStroke

    return withStroke(linewidth=width, foreground=color)


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average over a tenth of the steps, shorter at the ends."""
    half = max(1, values.size // 20)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(values.size)
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, values.size)
    mean: NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)
    return mean
