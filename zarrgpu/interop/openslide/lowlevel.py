"""The errors under the names that programs catch them by: ``openslide.lowlevel.OpenSlideError``."""

from __future__ import annotations

from zarrgpu.errors import MissingDependencyError as OpenSlideVersionError
from zarrgpu.errors import UnsupportedFormatError as OpenSlideUnsupportedFormatError
from zarrgpu.errors import ZarrGPUError as OpenSlideError

__all__ = ["OpenSlideError", "OpenSlideUnsupportedFormatError", "OpenSlideVersionError"]
