"""nvJPEG2000's C interface through ctypes, for its releases 0.8 and newer.

Source: nvjpeg2k.h in the wheels ``nvidia-nvjpeg2k-cu13`` and ``-cu12`` 0.11. The library loads,
makes handles and parses codestreams on a machine without a GPU; only decoding needs one.

It decodes one image a call. A decode state may be given the next when the one before is done, so a
few take turns, each with a stream of its own that forks from the batch's and joins it again: while
one codestream is parsed on the host, those before are decoded.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from zarrgpu.devices.image_library import ImageLibrary
from zarrgpu.devices.wheels import find_libraries, load_first

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from numpy.typing import NDArray

    from zarrgpu.devices.driver import Event, Stream
    from zarrgpu.devices.requests import ImageBatch

UINT8, UINT16, INT16 = 0, 1, 2
"""``nvjpeg2kImageType_t``."""

IMAGE: Final = np.dtype(
    [
        ("pixel_data", "<u8"),
        ("pitch_in_bytes", "<u8"),
        ("pixel_type", "<i4"),
        ("num_components", "<u4"),
    ]
)
"""``nvjpeg2kImage_t``."""

_IMAGE_STATUSES: Final = frozenset({2, 3, 4, 8, 9})
"""What an image can be to blame for."""
_RING: Final = 8
"""Images in flight of a batch."""

_LIBRARIES: Final = ("libnvjpeg2k.so.0",)
_FOLDERS: Final = ("nvjpeg2k/lib",)

_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
SIGNATURES: Final[Mapping[str, tuple[type[ctypes._CDataType], ...]]] = MappingProxyType(
    {
        "nvjpeg2kGetProperty": (_INT, _POINTER),
        "nvjpeg2kCreateSimple": (_POINTER,),
        "nvjpeg2kDestroy": (_POINTER,),
        "nvjpeg2kDecodeStateCreate": (_POINTER, _POINTER),
        "nvjpeg2kDecodeStateDestroy": (_POINTER,),
        "nvjpeg2kStreamCreate": (_POINTER,),
        "nvjpeg2kStreamDestroy": (_POINTER,),
        "nvjpeg2kStreamParse": (_POINTER, _POINTER, _SIZE, _INT, _INT, _POINTER),
        "nvjpeg2kDecode": (_POINTER, _POINTER, _POINTER, _POINTER, _POINTER),
    }
)
"""Arguments of each function that is called; all give an ``nvjpeg2kStatus_t``."""


class NvJpeg2k(ImageLibrary):
    """A loaded nvJPEG2000."""

    name, needed = "nvjpeg2k", "nvJPEG2000 0.8 or newer"
    signatures = SIGNATURES


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """One image in flight."""

    state: int
    bitstream: int
    stream: Stream
    done: Event


class Jpeg2kDecoder:
    """nvJPEG2000 on one device; one batch at a time is queued.

    Parameters
    ----------
    library : NvJpeg2k
    create_event, create_stream : callable
        Make those of the device, which is current whenever a method is called.
    """

    def __init__(
        self,
        library: NvJpeg2k,
        create_event: Callable[[], Event],
        create_stream: Callable[[], Stream],
    ) -> None:
        self.library = library
        self._create_event = create_event
        self._create_stream = create_stream
        self._handle = 0
        self._ring: list[_Place] = []
        self._forked: Event | None = None
        self._next = 0
        self._lock = threading.Lock()

    def decode(self, batch: ImageBatch, stream: Stream) -> None:
        """Queue the decoding of a batch; see `Driver.decode_images`."""
        images = image_table(batch)
        with self._lock:
            if self._forked is None:
                self._handle = self.library.create("nvjpeg2kCreateSimple")
                self._forked = self._create_event()
            self._forked.record(stream)
            used: dict[int, _Place] = {}
            try:
                for i in range(len(images)):
                    number = self._next % _RING
                    self._next += 1
                    place = self._place(number)
                    if number not in used:
                        place.stream.wait(self._forked)
                    used[number] = place
                    batch.statuses[i] = self._queue(place, batch, images, i)
            finally:
                for place in used.values():
                    stream.wait(place.done)

    def _place(self, number: int) -> _Place:
        """Free the next place: whose last image is done, or a new one."""
        if number < len(self._ring):
            place = self._ring[number]
            place.done.synchronize()
            return place
        create = self.library.create
        made = _Place(
            create("nvjpeg2kDecodeStateCreate", self._handle), create("nvjpeg2kStreamCreate"),
            self._create_stream(), self._create_event(),
        )  # fmt: skip
        self._ring.append(made)
        return made

    def _queue(self, place: _Place, batch: ImageBatch, images: NDArray[Any], i: int) -> int:
        call = self.library.call
        status = call(
            "nvjpeg2kStreamParse", self._handle, int(batch.sources[i]),
            int(batch.source_nbytes[i]), 0, 0, place.bitstream,
        )  # fmt: skip
        status = status or call(
            "nvjpeg2kDecode", self._handle, place.state, place.bitstream,
            images.ctypes.data + i * IMAGE.itemsize, place.stream.handle,
        )  # fmt: skip
        place.done.record(place.stream)
        if status not in _IMAGE_STATUSES:
            self.library.check("nvjpeg2k", status)
        return status


def image_table(batch: ImageBatch) -> NDArray[Any]:
    """``nvjpeg2kImage_t`` of each image; they point into ``batch.planes``."""
    images = np.zeros(len(batch.planes), IMAGE)
    layout = batch.planes.dtype
    first = batch.planes.ctypes.data + np.arange(len(images)) * layout.itemsize
    assert layout.fields is not None
    images["pixel_data"] = first + layout.fields["channel"][1]
    images["pitch_in_bytes"] = first + layout.fields["pitch"][1]
    wide = np.where(batch.signed, INT16, UINT16)
    images["pixel_type"] = np.where(batch.sample_nbytes == 1, UINT8, wide)
    images["num_components"] = batch.samples
    return images


@cache
def load_nvjpeg2k() -> NvJpeg2k:
    """Load the nvJPEG2000 of this environment: the wheels first, then the system.

    Raises
    ------
    MissingDependencyError
        If there is none, with what to install.
    """
    return load_first(NvJpeg2k, candidates(), "nvjpeg2k is needed to decode JPEG 2000")


def candidates() -> list[str]:
    """Where nvJPEG2000 may be."""
    return find_libraries(_LIBRARIES, _FOLDERS)
