"""Patches through `torch.utils.data.DataLoader`, for frameworks that insist on one.

`PatchLoader` needs none: it reads ahead on threads and plans many batches together. Its wrapper as
an iterable dataset keeps that; the map-style dataset lets a torch sampler choose the patches.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader, WeightedRandomSampler

import zarrgpu as zg
from zarrgpu.demo.inputs import make_inputs
from zarrgpu.interop.torch import as_iterable_dataset, as_map_dataset


def main(path: Path) -> None:
    torch.manual_seed(0)
    slide = zg.open_slide(path)

    # 1. all patches of a grid, batches made by zarrgpu
    grid = zg.GridPatches(slide, size=128)
    batches = as_iterable_dataset(zg.PatchLoader(grid, batch_size=16, dtype="float32"))
    seen = sum(len(batch["images"]) for batch in DataLoader(batches, batch_size=None))
    print(f"{seen} patches of the grid in {len(batches)} batches")
    assert seen == len(grid)

    # 2. patches chosen by torch: here the left half of the slide five times as often
    random = zg.RandomPatches(slide, size=64, num_patches=400, seed=1)
    patches = as_map_dataset(zg.PatchLoader(random, dtype="float32"))
    left = patches.table.location[:, 0] < slide.dimensions[0] / 2
    sampler = WeightedRandomSampler([5.0 if half else 1.0 for half in left], num_samples=160)
    loader = DataLoader(patches, batch_size=32, sampler=sampler, collate_fn=patches.collate)
    drawn = torch.cat([batch["locations"][:, 0] for batch in loader])
    share = (drawn < slide.dimensions[0] / 2).float().mean().item()
    print(f"{left.mean():.0%} of the patches are on the left, {share:.0%} of those drawn")
    assert share > left.mean()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(make_inputs(Path(temporary), size_px=1024)[0])
