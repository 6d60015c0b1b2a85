"""The image libraries of one device: which there are, and whose turn it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from zarrgpu.devices.nvjpeg import JpegDecoder, load_nvjpeg
from zarrgpu.errors import DeviceUnavailableError, MissingDependencyError

if TYPE_CHECKING:
    from zarrgpu.devices.driver import Event, ImageBatch, ImageFormat, Stream

Loaders: TypeAlias = "Mapping[ImageFormat, Callable[[], Any]]"

_DECODERS: Final[Mapping[ImageFormat, Any]] = MappingProxyType({"jpeg": JpegDecoder})
LOADERS: Final[Loaders] = MappingProxyType({"jpeg": load_nvjpeg})
"""Format -> what loads its library, or raises `MissingDependencyError`."""

NAMES: Final[Mapping[ImageFormat, str]] = MappingProxyType({"jpeg": "nvJPEG"})


class ImageDecoders:
    """Decoders of images on one device; made when they are first asked for.

    Parameters
    ----------
    create_event : callable
        Makes an event of the device.
    loaders : mapping
        As `LOADERS`.
    """

    def __init__(self, create_event: Callable[[], Event], loaders: Loaders = LOADERS) -> None:
        self.formats: Mapping[ImageFormat, str]
        """Formats there is a library for; its name and version."""
        self._decoders: dict[ImageFormat, Any] = {}
        formats: dict[ImageFormat, str] = {}
        for image_format, load in loaders.items():
            try:
                library = load()
            except (MissingDependencyError, DeviceUnavailableError):
                continue  # its images are decoded on the host, which the plan says
            self._decoders[image_format] = _DECODERS[image_format](library, create_event)
            version = ".".join(map(str, library.version))
            formats[image_format] = f"{NAMES[image_format]} {version}"
        self.formats = MappingProxyType(formats)

    def decode(self, image_format: ImageFormat, batch: ImageBatch, stream: Stream) -> None:
        """Queue a batch; the device is current. See `Driver.decode_images`."""
        self._decoders[image_format].decode(batch, stream)
