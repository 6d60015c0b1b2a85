"""The image libraries of one device: which there are, and whose turn it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from zarrgpu.devices.nvjpeg import JpegDecoder, load_nvjpeg
from zarrgpu.devices.nvjpeg2k import Jpeg2kDecoder, load_nvjpeg2k
from zarrgpu.errors import DeviceUnavailableError, MissingDependencyError

if TYPE_CHECKING:
    from zarrgpu.devices.driver import Event, ImageBatch, ImageFormat, Stream

Loaders: TypeAlias = "Mapping[ImageFormat, Callable[[], Any]]"

LOADERS: Final[Loaders] = MappingProxyType({"jpeg": load_nvjpeg, "jpeg2k": load_nvjpeg2k})
"""Format -> what loads its library, or raises `MissingDependencyError`."""

NAMES: Final[Mapping[ImageFormat, str]] = MappingProxyType(
    {"jpeg": "nvJPEG", "jpeg2k": "nvJPEG2000"}
)


class ImageDecoders:
    """Decoders of images on one device; made when they are first asked for.

    Parameters
    ----------
    create_event, create_stream : callable
        Make those of the device.
    loaders : mapping
        As `LOADERS`.
    """

    def __init__(
        self,
        create_event: Callable[[], Event],
        create_stream: Callable[[], Stream],
        loaders: Loaders = LOADERS,
    ) -> None:
        self.formats: Mapping[ImageFormat, str]
        """Formats there is a library for; its name and version."""
        self._decoders: dict[ImageFormat, Any] = {}
        formats: dict[ImageFormat, str] = {}
        for image_format, load in loaders.items():
            try:
                library = load()
            except (MissingDependencyError, DeviceUnavailableError):
                continue  # its images are decoded on the host, which the plan says
            if image_format == "jpeg":
                self._decoders[image_format] = JpegDecoder(library, create_event)
            else:
                self._decoders[image_format] = Jpeg2kDecoder(library, create_event, create_stream)
            version = ".".join(map(str, library.version))
            formats[image_format] = f"{NAMES[image_format]} {version}"
        self.formats = MappingProxyType(formats)

    def decode(self, image_format: ImageFormat, batch: ImageBatch, stream: Stream) -> None:
        """Queue a batch; the device is current. See `Driver.decode_images`."""
        self._decoders[image_format].decode(batch, stream)
