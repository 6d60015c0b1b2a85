"""The image libraries of one device: which there are, and whose turn it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from zarrgpu.devices.nvjpeg import JpegDecoder, load_nvjpeg
from zarrgpu.devices.nvjpeg2k import Jpeg2kDecoder, load_nvjpeg2k
from zarrgpu.errors import DeviceUnavailableError, MissingDependencyError

if TYPE_CHECKING:
    from zarrgpu.devices.driver import Event, Stream
    from zarrgpu.devices.requests import ImageBatch, ImageFormat

Loaders: TypeAlias = "Mapping[ImageFormat, Callable[[], Any]]"

LOADERS: Final[Loaders] = MappingProxyType({"jpeg": load_nvjpeg, "jpeg2k": load_nvjpeg2k})
"""Format -> what loads its library, or raises `MissingDependencyError`."""

NAMES: Final[Mapping[ImageFormat, str]] = MappingProxyType(
    {"jpeg": "nvJPEG", "jpeg2k": "nvJPEG2000"}
)


class ImageDecoders(Mapping["ImageFormat", str]):
    """Decoders of images on one device, by format; as a mapping, their names and versions.

    Each is looked for when it is first asked for. What is not installed, or has no decoder for this
    device, is not in the mapping: its images are decoded on the host, which the plan says.

    Parameters
    ----------
    create_event, create_stream : callable
        Make those of the device.
    activate : callable
        Makes a context in which the device is current.
    loaders : mapping
        As `LOADERS`.
    """

    def __init__(
        self,
        create_event: Callable[[], Event],
        create_stream: Callable[[], Stream],
        activate: Callable[[], AbstractContextManager[None]],
        loaders: Loaders = LOADERS,
    ) -> None:
        self._create_event = create_event
        self._create_stream = create_stream
        self._activate = activate
        self._loaders = loaders
        self._decoders: dict[ImageFormat, JpegDecoder | Jpeg2kDecoder | None] = {}
        self._lock = threading.RLock()

    def __getitem__(self, image_format: ImageFormat) -> str:
        decoder = self._find(image_format)
        if decoder is None:
            raise KeyError(image_format)
        return f"{NAMES[image_format]} {'.'.join(map(str, decoder.library.version))}"

    def __iter__(self) -> Iterator[ImageFormat]:
        return (name for name in self._loaders if self._find(name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def decode(self, image_format: ImageFormat, batch: ImageBatch, stream: Stream) -> None:
        """Queue a batch; the device is current. See `Driver.decode_images`."""
        decoder = self._find(image_format)
        if decoder is None:
            msg = f"no library decodes {image_format} here; ask image_formats first"
            raise DeviceUnavailableError(msg)
        decoder.decode(batch, stream)

    def _find(self, image_format: ImageFormat) -> JpegDecoder | Jpeg2kDecoder | None:
        with self._lock:
            if image_format not in self._decoders:
                self._decoders[image_format] = self._make(image_format)
            return self._decoders[image_format]

    def _make(self, image_format: ImageFormat) -> JpegDecoder | Jpeg2kDecoder | None:
        if image_format not in self._loaders:
            return None
        try:
            library = self._loaders[image_format]()
            if image_format == "jpeg2k":
                return Jpeg2kDecoder(library, self._create_event, self._create_stream)
            decoder = JpegDecoder(library, self._create_event)
            with self._activate():
                decoder.open()
        except (MissingDependencyError, DeviceUnavailableError):
            return None
        return decoder
