"""What `zarrgpu convert` keeps of a slide beside OME-Zarr's metadata: the attribute ``zarrgpu``.

``properties``          of the slide, by OpenSlide's keys
``icc_profile``         base64, or null
``associated_images``   name -> path of an array with axes (y, x, c), below the group

The attribute is a help, and others may write one of that name: what is not as above is left out.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from zarrgpu.formats.slide_properties import number_text

if TYPE_CHECKING:
    from zarrgpu.model import ArraySpec

_NAMES: Final = 64
_NDIM: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedOver:
    """Parsed attribute.

    Attributes
    ----------
    properties : mapping of str to str
    icc_profile : bytes or None
    associated : mapping of str to str
        Name -> path.
    """

    properties: Mapping[str, str] = field(default_factory=dict)
    icc_profile: bytes | None = None
    associated: Mapping[str, str] = field(default_factory=dict)


def carried_over(attributes: Mapping[str, Any]) -> CarriedOver:
    """Parse the attribute of a group.

    >>> carried_over({"zarrgpu": {"properties": {"a": "1", "b": 2}, "icc_profile": "!"}})
    CarriedOver(properties={'a': '1'}, icc_profile=None, associated={})
    """
    own = attributes.get("zarrgpu")
    if not isinstance(own, Mapping):
        return CarriedOver()
    profile: bytes | None = None
    if isinstance(own.get("icc_profile"), str):
        try:
            profile = base64.b64decode(own["icc_profile"], validate=True) or None
        except ValueError:
            profile = None
    associated = _texts(own.get("associated_images"))
    return CarriedOver(
        properties=_texts(own.get("properties")),
        icc_profile=profile,
        associated=dict(list(associated.items())[:_NAMES]),
    )


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether an array may be an associated image."""
    return len(shape) == _NDIM and all(shape)


def properties_of_levels(
    properties: Mapping[str, str],
    levels: Sequence[ArraySpec],
    plane: tuple[int, int],
    downsamples: tuple[float, ...] | None,
) -> Mapping[str, str]:
    """Properties of a slide with those of its levels as they were written, which may be others.

    Parameters
    ----------
    properties : mapping of str to str
        As carried over; where they say nothing of levels they stay as they are.
    levels : sequence of ArraySpec
    plane : (int, int)
        Which axes of the levels are x and y.
    downsamples : tuple of float, or None
        Of the levels; None for the mean ratio of their sizes.
    """
    if "openslide.level-count" not in properties:
        return properties
    x, y = plane
    kept = {k: v for k, v in properties.items() if not k.startswith("openslide.level")}
    kept["openslide.level-count"] = str(len(levels))
    full = levels[0].shape
    for index, level in enumerate(levels):
        factor = (full[y] / level.shape[y] + full[x] / level.shape[x]) / 2
        if downsamples is not None:
            factor = downsamples[index]
        values = {
            "downsample": number_text(factor),
            "height": str(level.shape[y]),
            "width": str(level.shape[x]),
            "tile-height": str(level.chunk_shape[y]),
            "tile-width": str(level.chunk_shape[x]),
        }
        kept |= {f"openslide.level[{index}].{name}": text for name, text in values.items()}
    return kept


def _texts(value: Any) -> dict[str, str]:
    items = value.items() if isinstance(value, Mapping) else ()
    return {k: v for k, v in items if isinstance(k, str) and isinstance(v, str)}
