"""Every error that zarrgpu raises on purpose, in one tree.

::

    ZarrGPUError
    ├── RequestError                        the call cannot be served as asked
    │   ├── SelectionError                  (IndexError)  outside the array, or of an unknown form
    │   ├── UnsupportedCodecError           (NotImplementedError)  no decoder for this codec
    │   ├── UnsupportedFormatError          (NotImplementedError)  not a layout that zarrgpu reads
    │   ├── DeviceUnavailableError          (RuntimeError)  no such device, driver or library
    │   │   └── DeviceLostError             the device failed, and does no more for this process
    │   ├── MissingDependencyError          (ImportError)  an optional package is not installed
    │   ├── MemoryBudgetError               (MemoryError)  cannot be made to fit the budget
    │   └── ReadCancelledError              the caller does not want the result any more
    └── DataError                           what is stored is not what it claims to be
        ├── MetadataError                   (ValueError)  with the location inside the document
        ├── ChunkDecodeError                (ValueError)  with the chunk's key and codec
        └── StoreError                      (OSError)  with the key and byte range
            ├── NodeNotFoundError           (FileNotFoundError, KeyError)  nothing there
            └── ObjectTooLargeError         an object is larger than it may be

Messages are lower case and say what, where, expected and got, and the next step. Each error also
inherits the built-in that callers of NumPy or zarr-python would catch.
"""

from __future__ import annotations


class ZarrGPUError(Exception):
    """Base of all errors raised by zarrgpu."""


class RequestError(ZarrGPUError):
    """The call cannot be served as asked; the data may be fine."""


class SelectionError(RequestError, IndexError):
    """A selection is outside the array or of a form that is not supported."""


class UnsupportedCodecError(RequestError, NotImplementedError):
    """No decoder is known for a codec or for its configuration."""


class UnsupportedFormatError(RequestError, NotImplementedError):
    """The file or node is of a kind, or uses a feature, that zarrgpu does not read."""


class DeviceUnavailableError(RequestError, RuntimeError):
    """The asked-for device, its driver or one of its libraries is not there."""


class DeviceLostError(DeviceUnavailableError):
    """A device failed in a way that nothing of this process runs on it any more.

    What was on it is lost. The objects that were opened are not: they read on the CPU, on another
    device, or on this one in a new process.
    """


class MissingDependencyError(RequestError, ImportError):
    """An optional package is needed for this data and is not installed."""


class MemoryBudgetError(RequestError, MemoryError):
    """The request cannot be made to fit the memory budget, even when split."""


class ReadCancelledError(RequestError):
    """A read was given up because its caller said so."""


class DataError(ZarrGPUError):
    """What is stored is not what it claims to be."""


class MetadataError(DataError, ValueError):
    """A metadata document is malformed.

    Attributes
    ----------
    source : str
        Path or URL of the document.
    location : tuple of (str | int)
        Where in the document, outermost first; empty for the whole document.
    kind : str
        One of ``"missing"``, ``"type"``, ``"value"``, ``"syntax"``, ``"unknown"``.
    """

    def __init__(
        self,
        message: str,
        *,
        source: str,
        location: tuple[str | int, ...] = (),
        kind: str = "value",
    ) -> None:
        self.source = source
        self.location = location
        self.kind = kind
        # names of members come from the document, and may be of any length
        where = f" at {'.'.join(str(part)[:80] for part in location)}" if location else ""
        super().__init__(f"{source!r}{where}: {message}")


class ChunkDecodeError(DataError, ValueError):
    """A stored chunk could not be decoded to what the metadata promises.

    Attributes
    ----------
    source : str
        The array or file that the chunk belongs to.
    chunk : str
        Chunk key or tile, as it would be named to a user.
    codec : str
        Name of the codec that failed.
    """

    def __init__(self, message: str, *, source: str, chunk: str, codec: str) -> None:
        self.source = source
        self.chunk = chunk
        self.codec = codec
        super().__init__(f"chunk {chunk!r} of {source!r} ({codec}): {message}")


class StoreError(DataError, OSError):
    """A store could not supply bytes that it should have."""


class NodeNotFoundError(StoreError, FileNotFoundError, KeyError):
    """Nothing readable is at the given path."""


class ObjectTooLargeError(StoreError):
    """An object is larger than what it is read for may be; it was not read."""
