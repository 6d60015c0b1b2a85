"""Train a small torch network on patches of a whole-slide image.

The slide is given on the command line; without one the demo's tissue slide is made. The task is a
toy with a known answer: tell patches darker in red (much stain) from the others of their batch.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

import zarrgpu as zg
from zarrgpu.demo.foreground import foreground_mask
from zarrgpu.demo.inputs import make_inputs
from zarrgpu.interop.torch import to_torch

PATCH, BATCH, EPOCHS = 64, 32, 3


def main(path: Path) -> None:
    torch.manual_seed(0)
    slide = zg.open_slide(path)
    print(slide, "mpp", slide.mpp)

    mask = foreground_mask(slide.get_thumbnail((512, 512)))
    sampler = zg.RandomPatches(slide, size=PATCH, mask=mask, num_patches=320, seed=7)
    loader = zg.PatchLoader(  # NCHW bfloat16, each patch flipped and turned at random
        sampler,
        batch_size=BATCH,
        normalize=(128.0, 64.0),
        dtype="bfloat16",
        augment="flips+rotations",
    )

    model = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 1),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in loader:
            images = to_torch(batch)  # no copy: the memory that the pixels were placed in
            model.to(images.device)
            red = images[:, 0].float().mean((1, 2))
            target = (red < red.mean()).float()
            with torch.autocast(images.device.type, torch.bfloat16):
                scores = model(images)[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(scores.float(), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"epoch {epoch}: loss {total / len(loader):.3f}")
    stats = loader.stats
    print(f"{stats.patches} patches from {stats.chunks_decoded} decoded tiles on {loader.device}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(make_inputs(Path(temporary), size_px=1024)[0])
