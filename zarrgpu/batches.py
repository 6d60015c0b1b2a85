"""`Batch`: what a loader hands over, and how other frameworks take it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.devices.lent import Lent
from zarrgpu.output import is_bfloat16


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One training batch.

    Attributes
    ----------
    images : array of the loader's device, shape (N, H, W, C) or (N, C, H, W)
        A view of the window that it was read with, whose memory is used again once nothing refers
        to it.
    locations : int64 (N, 2)
        (x, y) of each patch in its slide's level-0 frame.
    slides : int32 (N,)
        Which of the sampler's slides each patch is from.
    indices : int64 (N,)
        Number of each patch in the epoch.
    valid : bool (N,)
        False for patches that could not be read (only with ``on_error="mask"``).
    symmetries : uint8 (N,)
        How each patch was flipped and turned (see `PatchLoader`'s `augment`): patch P became
        ``np.rot90(P if s < 4 else np.fliplr(P), s % 4)``, with rows and columns as its first two
        axes. All 0 without augmentation.
    lent : Lent, optional
        On a CUDA device: notes on which streams the images are used, so that their memory is not
        written anew before these are done. The stream that is current when the batch is taken, and
        those that get it by DLPack, are noted; others are not: `Lent.to_stream`, or wait for them
        before you let go of the batch.
    """

    images: Any
    locations: NDArray[np.int64]
    slides: NDArray[np.int32]
    indices: NDArray[np.int64]
    valid: NDArray[np.bool_]
    symmetries: NDArray[np.uint8]
    lent: Lent | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.slides)

    def __dlpack__(self, *, stream: int | None = None, **kwargs: Any) -> Any:
        """Hand the images to another framework without a copy, to be used on its stream.

        Raises
        ------
        BufferError
            For bfloat16 on the host, which NumPy does not hand out.
        """
        if isinstance(self.images, np.ndarray) and is_bfloat16(self.images.dtype):
            msg = (
                "NumPy hands no bfloat16 out by DLPack; zarrgpu.interop.torch.to_torch(batch) is a "
                "tensor over the same memory"
            )
            raise BufferError(msg)
        if self.lent is None:
            return self.images.__dlpack__(stream=stream, **kwargs)
        self.lent.to_stream(stream)
        return self.images.__dlpack__(stream=stream, **kwargs)

    def __dlpack_device__(self) -> Any:
        """Where the images lie, as DLPack numbers devices."""
        return self.images.__dlpack_device__()
