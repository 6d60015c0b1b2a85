"""From an opened slide to batches: look at it, choose where to sample, make the loaders."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import zarrgpu as zg
from zarrgpu.demo import console
from zarrgpu.demo.display import Display
from zarrgpu.demo.foreground import density_map, foreground_mask, is_brightfield
from zarrgpu.demo.labels import Labeller, Split, has_room, split_by_place
from zarrgpu.demo.train import MIN_PATCH_PX
from zarrgpu.errors import SelectionError, UnsupportedFormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zarrgpu.demo.foreground import Map, Mask
    from zarrgpu.demo.labels import Locations

THUMBNAIL_PX = 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """An opened slide and what its thumbnail says about it."""

    slide: zg.Slide
    thumbnail: NDArray[Any]
    mask: Mask
    density: Map
    display: Display
    split: Split
    patch_px: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaders:
    """Training and validation batches, and the places of the first training epoch."""

    train: zg.PatchLoader
    validation: zg.PatchLoader
    locations: Locations
    label: Labeller


def look(slide: zg.Slide, patch_size: int | None) -> View:
    """Thumbnail, foreground, and where to train and to validate."""
    patch_px = choose_patch_size(slide.dimensions, patch_size)
    console.title("foreground")
    began = time.perf_counter()
    thumbnail = slide.get_thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    seconds = time.perf_counter() - began
    mask = foreground_mask(thumbnail)
    density = density_map(thumbnail)
    width, height = slide.dimensions
    fractions = (patch_px / width, patch_px / height)
    found = float(mask.mean())
    roomy = has_room(mask, fractions)
    if not roomy:
        mask = np.ones_like(mask)
    split = split_by_place(mask, density, patch_fractions=fractions)
    h, w = mask.shape
    console.fact("thumbnail", f"{w} x {h} px in {1000 * seconds:.0f} ms")
    kind = "bright field, Otsu on saturation" if is_brightfield(thumbnail) else "Otsu on intensity"
    console.fact("foreground", f"{found:.0%} of the image ({kind})")
    if not roomy:
        console.note("no patch would lie half in it: the whole image is sampled instead")
    if split.side is None:
        console.fact("split", "none: too small to cut, validation sees the training ground")
    else:
        console.fact(
            "split", f"by place: the {split.side} end validates, cut at {split.boundary:.0%}"
        )
    return View(
        slide=slide,
        thumbnail=thumbnail,
        mask=mask,
        density=density,
        display=Display.fit(thumbnail, slide.spec.channels),
        split=split,
        patch_px=patch_px,
    )


def sample(
    view: View, *, num_patches: int, batch_size: int, seed: int, device: str | None
) -> Loaders:
    """Samplers over both masks, labels from the first epoch's places, and the loaders."""
    console.title("sample")
    train, validation = (
        zg.RandomPatches(
            view.slide, size=view.patch_px, mask=mask, num_patches=number, seed=seed + offset
        )
        for offset, mask, number in (
            (0, view.split.train, num_patches),
            (1, view.split.validation, max(num_patches // 4, 1)),
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
            batch_size=batch_size,
            layout="NCHW",
            dtype="float32",
            normalize=(mean, std),
            device=device,
            fixed_epoch=fixed_epoch,
        )
        for sampler, fixed_epoch in ((train, None), (validation, 0))
    ]
    console.fact("patches", f"{num_patches} to train, {len(validation)} to validate, each epoch")
    console.fact("patch", f"{view.patch_px} x {view.patch_px} px of level 0, seed {seed}")
    dense = label(locations).mean()
    console.fact("label", f"denser than the median patch or not: {dense:.0%} are")
    if dense == 0:
        console.note("all patches look alike: there is nothing to tell apart in this image")
    return Loaders(train=loaders[0], validation=loaders[1], locations=locations, label=label)


def plan_one_batch(view: View, loaders: Loaders, device: str | None) -> str:
    """Say what one batch would cost, before anything is read."""
    console.title("plan of one batch")
    size = (view.patch_px, view.patch_px)
    began = time.perf_counter()
    plan = view.slide.plan_regions(
        loaders.locations[: loaders.train.batch_size], 0, size, device=device
    )
    seconds = time.perf_counter() - began
    text = str(plan.explain())
    console.block(text)
    console.fact("planned in", f"{1000 * seconds:.1f} ms")
    return text


def read_alone(loaders: Loaders) -> dict[str, Any]:
    """Time an epoch of the loader with nothing else to do."""
    console.title("load an epoch, without training")
    stats = loaders.train.stats
    before = asdict(stats)
    began = time.perf_counter()
    batches = sum(1 for _ in loaders.train)
    seconds = time.perf_counter() - began
    done = {name: value - before[name] for name, value in asdict(stats).items()}
    loaders.train.set_epoch(0)  # so that training begins with the patches that the report draws
    rates = {
        "patches_per_second": done["patches"] / seconds,
        "decoded_megabytes_per_second": done["decoded_bytes"] / seconds / 1e6,
        "delivered_megabytes_per_second": done["delivered_bytes"] / seconds / 1e6,
    }
    patches, chunks = done["patches"], done["chunks_decoded"]
    console.fact("device", loaders.train.device)
    console.fact("read", f"{patches} patches in {batches} batches in {seconds:.2f} s")
    console.fact("rate", f"{rates['patches_per_second']:,.0f} patches/s")
    console.fact(
        "decoded",
        f"{rates['decoded_megabytes_per_second']:,.0f} MB/s in the stored type: {chunks} chunks, "
        f"each once; {done['fetched_bytes'] / 1e6:,.1f} MB fetched",
    )
    console.fact("delivered", f"{rates['delivered_megabytes_per_second']:,.0f} MB/s as float32")
    return {"device": loaders.train.device, "batches": batches, **done, **rates}


def choose_patch_size(dimensions: tuple[int, int], wanted: int | None) -> int:
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
