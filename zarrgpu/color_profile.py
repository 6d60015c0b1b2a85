"""ICC profiles as Pillow's objects."""

from __future__ import annotations

import io
from typing import Any

from zarrgpu.errors import MissingDependencyError


def open_profile(icc_profile: bytes | None) -> Any:
    """Make a ``PIL.ImageCms.ImageCmsProfile`` of a profile; None of None.

    Raises
    ------
    MissingDependencyError
        Without Pillow.
    """
    if icc_profile is None:
        return None
    try:
        from PIL import ImageCms
    except ImportError as error:
        msg = "color_profile needs Pillow: pip install pillow (icc_profile gives the bytes)"
        raise MissingDependencyError(msg) from error
    return ImageCms.getOpenProfile(io.BytesIO(icc_profile))
