"""Train a small classifier on the batches of a loader, on the device where the batches live.

The loader's arrays reach torch by DLPack, without a copy. torch is imported inside functions:
nothing else of the demo needs it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zarrgpu.demo.labels import Locations
from zarrgpu.demo.progress import Progress
from zarrgpu.devices.host import available_cores
from zarrgpu.errors import MissingDependencyError

MIN_PATCH_PX = 8


class Batch(Protocol):
    """What is used of a loader's batch."""

    @property
    def images(self) -> Any:
        """Float array of shape (n, c, h, w), with ``__dlpack__``."""

    @property
    def locations(self) -> Locations:
        """Level-0 x, y of each patch: shape (n, 2)."""


class Loader(Protocol):
    """What is used of a loader: each iteration is an epoch."""

    def __iter__(self) -> Iterator[Any]:
        """Yield batches."""

    def __len__(self) -> int:
        """Batches of an epoch."""


Label = Callable[[Locations], NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """What a model says of patches that it did not learn from.

    Attributes
    ----------
    loss : float
        Mean binary cross-entropy.
    accuracy : float
        Share of patches whose class is right, 0 ... 1.
    scores : float32 array of shape (n,)
        Probability of class 1.
    labels : int64 array of shape (n,)
    locations : int64 array of shape (n, 2)
    """

    loss: float
    accuracy: float
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    locations: Locations

    @property
    def baseline(self) -> float:
        """Accuracy of always naming the commoner class."""
        share = float(self.labels.mean()) if self.labels.size else 0.0
        return max(share, 1 - share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One pass: `seconds` is reading and training together, without the validation."""

    train_loss: float
    validation_loss: float
    validation_accuracy: float
    patches: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class History:
    """A finished training.

    Attributes
    ----------
    step_losses : tuple of float
        Training loss of every optimizer step.
    epochs : tuple of Epoch
    before, after : Evaluation
        Of the validation patches, before the first step and after the last.
    parameters : int
    device : str
        Where the model was trained, as torch names it.
    """

    step_losses: tuple[float, ...]
    epochs: tuple[Epoch, ...]
    before: Evaluation
    after: Evaluation
    parameters: int
    device: str


def import_torch() -> Any:
    """Return the torch module, or say how to get it."""
    try:
        import torch
    except ImportError as error:
        msg = "the demo trains a torch model: pip install 'zarrgpu[demo]' (or torch)"
        raise MissingDependencyError(msg) from error
    return torch


def build_model(channels: int, patch_px: int) -> Any:
    """Build a small CNN: (n, channels, h, w) float32 to (n,) logits.

    Large patches (from 128 px) enter by a 4 x 4 convolution of stride 4, small ones by 3 x 3 of
    stride 2; each further block halves the side, until about 4 x 4 pixels are left.
    """
    if patch_px < MIN_PATCH_PX:
        msg = f"the model needs patches of at least {MIN_PATCH_PX} px, got {patch_px}"
        raise ValueError(msg)
    nn = import_torch().nn
    widths: tuple[int, ...] = (16, 32, 48, 64)
    if patch_px >= 128:
        layers = [nn.Conv2d(channels, widths[0], 4, stride=4)]
    else:
        layers = [nn.Conv2d(channels, widths[0], 3, stride=2, padding=1)]
        widths = widths[: max(1, int(math.log2(patch_px / 4)))]
    layers += [nn.GroupNorm(4, widths[0]), nn.ReLU()]
    for width, wider in pairwise(widths):
        layers += [
            nn.Conv2d(width, wider, 3, stride=2, padding=1),
            nn.GroupNorm(4, wider),
            nn.ReLU(),
        ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 1), nn.Flatten(0)]
    return nn.Sequential(*layers, *head)


def fit(
    train: Loader,
    validation: Loader,
    label: Label,
    *,
    channels: int,
    patch_px: int,
    epochs: int,
    seed: int = 7,
    learning_rate: float = 3e-3,
    on_epoch: Callable[[int, Epoch], None] | None = None,
) -> History:
    """Train for `epochs` passes over `train`; evaluate on `validation` before and after each.

    Parameters
    ----------
    train, validation : iterables of batches
        Their images decide the device.
    label : function
        Gives the class (0 or 1) of patches from their level-0 locations.
    channels, patch_px : int
        Of the images.
    on_epoch : function, optional
        Called with the number of the epoch, from 1, and its figures.
    """
    torch = import_torch()
    with torch.random.fork_rng(devices=[]):  # leaves the caller's generator as it was
        torch.manual_seed(seed)
        model = build_model(channels, patch_px)
    before = after = evaluate(model, validation, label)  # also moves the model to the batches
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-4)
    steps = max(1, epochs * len(train))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=steps + 1
    )
    losses: list[float] = []
    done: list[Epoch] = []
    for number in range(1, epochs + 1):
        started = time.perf_counter()
        with _core_for_loader():
            step_losses, patches = _train_epoch(
                model, train, label, optimizer, schedule, number, epochs
            )
        seconds = time.perf_counter() - started
        losses += step_losses
        after = evaluate(model, validation, label)
        done.append(
            Epoch(
                train_loss=float(np.mean(step_losses)) if step_losses else math.nan,
                validation_loss=after.loss,
                validation_accuracy=after.accuracy,
                patches=patches,
                seconds=seconds,
            )
        )
        if on_epoch is not None:
            on_epoch(number, done[-1])
    return History(
        step_losses=tuple(losses),
        epochs=tuple(done),
        before=before,
        after=after,
        parameters=sum(p.numel() for p in model.parameters()),
        device=str(next(model.parameters()).device),
    )


def evaluate(model: Any, loader: Loader, label: Label) -> Evaluation:
    """Score every patch of `loader` without learning from it."""
    torch = import_torch()
    scores, labels, locations, total = [], [], [], 0.0
    model.eval()
    with torch.no_grad(), _core_for_loader():
        for batch in loader:
            target = label(batch.locations)
            images = torch.from_dlpack(batch.images)
            logits = model.to(images.device)(images)
            total += float(_loss(logits, target, reduction="sum"))
            scores.append(torch.sigmoid(logits).cpu().numpy())
            labels.append(target)
            locations.append(np.array(batch.locations))
    if not labels:
        msg = "the validation loader gave no batch: nothing can be evaluated"
        raise ValueError(msg)
    truth, score = np.concatenate(labels), np.concatenate(scores)
    return Evaluation(
        loss=total / truth.size,
        accuracy=float(((score > 0.5) == truth).mean()),
        scores=score,
        labels=truth,
        locations=np.concatenate(locations),
    )


@contextmanager
def _core_for_loader() -> Iterator[None]:
    """Leave a core to the loader: torch's threads wait for the slowest of them at every step.

    Measured on 2 busy cores (load 4 to 5): 27 patches/s with two threads, 250 with one.
    """
    torch = import_torch()
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, min(threads, available_cores() - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train_epoch(
    model: Any,
    loader: Loader,
    label: Label,
    optimizer: Any,
    schedule: Any,
    number: int,
    epochs: int,
) -> tuple[list[float], int]:
    """One pass of optimizer steps: the loss of each, and how many patches were seen."""
    torch = import_torch()
    progress = Progress(f"epoch {number}/{epochs}", len(loader))
    losses: list[float] = []
    patches = 0
    model.train()
    for batch in loader:
        images = torch.from_dlpack(batch.images)
        loss = _loss(model(images), label(batch.locations))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        patches += int(images.shape[0])
        progress.update(f"loss {losses[-1]:.3f}")
    progress.close()
    return losses, patches


def _loss(logits: Any, target: NDArray[np.int64], *, reduction: str = "mean") -> Any:
    torch = import_torch()
    truth = torch.from_numpy(target).to(device=logits.device, dtype=logits.dtype)
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    return cross_entropy(logits, truth, reduction=reduction)
