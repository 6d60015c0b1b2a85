"""Any slide or array as levels whose axes are in OME-Zarr's order: t, c, z, y, x.

OME-Zarr wants time before channels before space, and a slide has its channels last, a NIfTI image x
first: so boxes are asked for in the output's order and come transposed. Colours that are structures
(NIfTI's RGB24) become channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zarrgpu.array import Array
from zarrgpu.errors import UnsupportedFormatError
from zarrgpu.formats.ngff_version import metadata_of
from zarrgpu.formats.nifti_header import NiftiHeader
from zarrgpu.formats.slide_properties import Z_SPACING, parse_number
from zarrgpu.model import ReadOptions
from zarrgpu.nifti import has_nifti_header, header_bytes, nifti_header
from zarrgpu.ome_image import OmeZarrImage
from zarrgpu.slide import Slide

ORDER: Final = "tczyx"
_KINDS: Final = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
_NIFTI_UNITS: Final = {
    "meter": "meter", "mm": "millimeter", "micron": "micrometer",
    "sec": "second", "msec": "millisecond", "usec": "microsecond",
}  # fmt: skip
_COLOURS: Final = (3, 4)
_KINDS_OF: Final[Mapping[str, type]] = {
    "name": str, "rdefs": Mapping, "type": str, "metadata": Mapping,
}  # fmt: skip
"""Members of OME-Zarr's metadata that are carried over, and what they must be."""

_LABEL_INTENTS: Final = (1002, 1003)
"""NIfTI's codes for labels and for names of regions."""

Box = tuple[tuple[int, int], ...]
"""First element, and one past the last, along each axis."""


Transform = tuple[list[float], list[float]]
"""Scale, and translation after it, along each axis of the output."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Space:
    """Where the levels of an OME-Zarr image lie; `document` if it says more than can be kept."""

    units: tuple[str | None, ...]
    transforms: tuple[Transform, ...]
    document: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """What is converted.

    Attributes
    ----------
    name : str
        Path or URL.
    arrays : tuple of Array
        Levels, finest first.
    axes : str
        Axis names in the output's order, such as "cyx".
    stored : tuple of int
        Axis of the arrays for each axis of the output; ``ndim`` of the arrays is the bytes of a
        structure.
    scale : tuple of float
        Size of an element of level 0 along each axis of the output.
    units : tuple of (str or None)
    transforms : tuple of (list of float, list of float), or None
        Scale and translation of each level, where the source has them.
    interleaved : bool
        Whether channels are colours of a pixel and belong together in a chunk.
    channels : tuple of mapping
        omero channels.
    omero : mapping
        What an OME-Zarr image's ``omero`` has besides.
    described : mapping
        Name of an OME-Zarr image, and ``type`` and ``metadata`` of how its levels were made.
    attributes : mapping
        For the attribute ``zarrgpu``.
    associated : mapping of str to Array
    nifti : bytes or None
        NIfTI header and extensions.
    labels : bool
        Whether elements are labels, which have no mean.
    image_label : mapping or None
        OME-Zarr's ``image-label``.
    """

    name: str
    arrays: tuple[Array, ...]
    axes: str
    stored: tuple[int, ...]
    scale: tuple[float, ...]
    units: tuple[str | None, ...]
    transforms: tuple[Transform, ...] | None = None
    interleaved: bool = False
    channels: tuple[Mapping[str, Any], ...] = ()
    omero: Mapping[str, Any] = field(default_factory=dict)
    described: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    associated: Mapping[str, Array] = field(default_factory=dict)
    nifti: bytes | None = None
    labels: bool = False
    image_label: Mapping[str, Any] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the elements that are written, in native byte order."""
        dtype = self.arrays[0].dtype
        return np.dtype(np.uint8) if dtype.names else dtype

    @property
    def fill_value(self) -> Any:
        """Value of what is not stored, and of what lies outside of the image."""
        spec = self.arrays[0].spec
        return self.dtype.type(0 if spec.dtype.names else spec.fill_scalar)

    def shape(self, level: int) -> tuple[int, ...]:
        """Elements of a level along each axis of the output."""
        array = self.arrays[level]
        return tuple((*array.shape, len(array.dtype.names or ()))[axis] for axis in self.stored)

    def read(self, level: int, box: Box, options: ReadOptions) -> NDArray[Any]:
        """Read a box of a level, axes of the output."""
        array = self.arrays[level]
        selection: list[slice] = [slice(None)] * array.ndim
        for axis, (first, last) in zip(self.stored, box, strict=True):
            if axis < array.ndim:
                selection[axis] = slice(first, last)
        pixels = np.asarray(array.read(tuple(selection), device="cpu", options=options))
        if array.dtype.names:
            pixels = pixels.view(np.uint8).reshape(*pixels.shape, len(array.dtype.names))
        return pixels.transpose(self.stored)


def open_source(node: Any, name: str, axes: str | None) -> Source:
    """Make the source of what `zarrgpu.open` gave.

    Raises
    ------
    UnsupportedFormatError
        If it is no image: a group, a type that is no number, axes that are unknown.
    """
    if isinstance(node, Slide):
        source = _of_slide(node, name)
    elif isinstance(node, Array):
        source = _of_array(node, name, axes)
    else:
        msg = (
            f"{name!r} is a {type(node).__name__.lower()}, not an image: convert its images one by "
            "one"
        )
        raise UnsupportedFormatError(msg)
    if source.dtype.kind not in "biufc":
        msg = f"{name!r} has elements of {source.dtype}; OME-Zarr images are numbers"
        raise UnsupportedFormatError(msg)
    if any(0 in array.shape for array in source.arrays):
        raise UnsupportedFormatError(f"{name!r} has no elements; an image has some")
    return source


def _order(names: Sequence[str | None], name: str) -> tuple[str, tuple[int, ...]]:
    """Axes of the output, and where each is in `names`."""
    known = [axis for axis in names if axis is not None and axis in ORDER]
    if len(known) != len(names) or len(set(known)) != len(known) or not {"y", "x"} <= set(known):
        given = ", ".join(axis or "?" for axis in names)
        msg = (
            f"{name!r} has axes ({given}); an OME-Zarr image has y, x and some of t, c, z, each "
            "once: name them in their order, such as axes='czyx' (--axes czyx)"
        )
        raise UnsupportedFormatError(msg)
    axes = "".join(axis for axis in ORDER if axis in known)
    return axes, tuple(known.index(axis) for axis in axes)


def _of_slide(slide: Slide, name: str) -> Source:
    axes, stored = _order(slide.axes, name)
    mpp = dict(zip("xy", slide.mpp, strict=True))
    mpp["z"] = parse_number(slide.properties.get(Z_SPACING))
    scale = tuple(mpp.get(axis) or 1.0 for axis in axes)
    units = tuple("micrometer" if mpp.get(axis) else None for axis in axes)
    attributes: dict[str, Any] = {"vendor": slide.spec.vendor, "properties": dict(slide.properties)}
    nifti = has_nifti_header(slide)
    image_label = _image_label(slide)
    transforms: tuple[Transform, ...] | None = None
    space = _ome_space(slide, stored)
    if space is not None:
        scale, units, transforms = tuple(space.transforms[0][0]), space.units, space.transforms
        if space.document is not None:
            attributes["source_ome"] = dict(space.document)
    elif slide.spec.downsamples is not None:  # better than what sizes say
        transforms = tuple(_covering(scale, axes, factor) for factor in slide.spec.downsamples)
    colours = slide.channel_count in _COLOURS and slide.dtype == np.uint8
    rgb = slide.channel_count == len(_rgb_channels())
    last = colours and slide.axes[-1] == "c"
    together = colours and slide.levels[0].chunks[slide.axes.index("c")] == slide.channel_count
    return Source(
        name=name,
        arrays=slide.levels,
        axes=axes,
        stored=stored,
        scale=scale,
        units=units,
        transforms=transforms,
        interleaved=last or together,
        channels=slide.spec.channels or (_rgb_channels() if last and rgb else ()),
        omero=_members(slide, "omero", ("name", "rdefs")),
        described=_members(slide, "multiscales", ("name", "type", "metadata")),
        attributes=attributes,
        associated=slide.associated_images,
        nifti=header_bytes(slide) if nifti else None,
        labels=image_label is not None or (nifti and _is_label(nifti_header(slide))),
        image_label=image_label,
    )


def _of_array(array: Array, name: str, axes: str | None) -> Source:
    names: tuple[str | None, ...] = tuple(axes) if axes else array.dimension_names
    nifti = has_nifti_header(array)
    if nifti and axes is None:
        if array.ndim > 5:
            msg = f"{name!r} has {array.ndim} axes, OME-Zarr images have up to 5"
            raise UnsupportedFormatError(msg)
        names = tuple("xyztc"[: array.ndim])
    if array.dtype.names:
        _check_colours(array, name)
        names = (*names, "c")
    if len(names) != array.ndim + bool(array.dtype.names):
        raise UnsupportedFormatError(f"{name!r} has {array.ndim} axes, {len(names)} are named")
    order, stored = _order(names, name)
    scale, units = [1.0] * len(order), [None] * len(order)
    header = None
    if nifti:
        header = nifti_header(array)
        zooms = dict(zip("xyzt", header.zooms, strict=False))
        sizes = [zooms.get(axis, 0.0) for axis in order]
        # a header may say nothing, or nonsense, which OME-Zarr has no number for
        scale = [size if math.isfinite(size) and size > 0 else 1.0 for size in sizes]
        of_axis = {"t": header.time_unit, "c": None}
        units = [_NIFTI_UNITS.get(of_axis.get(a, header.space_unit) or "") for a in order]  # type: ignore[misc]
    return Source(
        name=name,
        arrays=(array,),
        axes=order,
        stored=stored,
        scale=tuple(scale),
        units=tuple(units),
        interleaved=bool(array.dtype.names) or (names[-1] == "c" and array.shape[-1] in _COLOURS),
        attributes={} if nifti else {"attributes": dict(array.attrs)},
        nifti=None if header is None else header_bytes(array),
        labels=header is not None and _is_label(header),
    )


def _check_colours(array: Array, name: str) -> None:
    fields: Mapping[str, Any] = array.dtype.fields or {}
    if (
        any(field[0] != np.uint8 for field in fields.values())
        or len(fields) != array.dtype.itemsize
    ):
        msg = f"{name!r} has elements of {array.dtype}; of structures only bytes are colours"
        raise UnsupportedFormatError(msg)


def _ome_space(slide: Slide, stored: tuple[int, ...]) -> _Space | None:
    """Where the levels of an OME-Zarr image lie, if it says so.

    Scales are sizes of pixels: along an axis that runs backwards levels lie as they do to level 0.
    """
    if not isinstance(slide, OmeZarrImage):
        return None
    image = slide.multiscale
    first = image.named[0]
    transforms: list[Transform] = []
    for matrix in image.named:
        if matrix is None or first is None:
            return None
        scale = [abs(float(matrix[axis, axis])) for axis in stored]
        shift = [
            float(
                matrix[axis, -1] if matrix[axis, axis] > 0 else first[axis, -1] - matrix[axis, -1]
            )
            for axis in stored
        ]
        transforms.append((scale, shift))
    units = tuple(image.units[axis] for axis in stored)
    document = metadata_of(slide.group.attrs, slide.spec.source).value if image.edges else None
    return _Space(units=units, transforms=tuple(transforms), document=document)


def _covering(scale: Sequence[float], axes: str, factor: float) -> Transform:
    """Scale and translation of a level whose pixels cover so many of level 0 in x and y."""
    factors = [factor if axis in "yx" else 1.0 for axis in axes]
    sizes = [size * by for size, by in zip(scale, factors, strict=True)]
    return sizes, [size * (by - 1) / 2 for size, by in zip(scale, factors, strict=True)]


def _members(slide: Slide, key: str, names: Sequence[str]) -> dict[str, Any]:
    """Members of an OME-Zarr image's metadata, those that are of the kind they must be."""
    if not isinstance(slide, OmeZarrImage):
        return {}
    owner = metadata_of(slide.group.attrs, slide.spec.source).value.get(key)
    if isinstance(owner, list):
        owner = owner[int(slide.multiscale.location[-1])]
    if not isinstance(owner, Mapping):
        return {}
    return {name: owner[name] for name in names if isinstance(owner.get(name), _KINDS_OF[name])}


def _image_label(slide: Slide) -> Mapping[str, Any] | None:
    """What an OME-Zarr image says of itself as a label image."""
    if slide.group is None:
        return None
    found = metadata_of(slide.group.attrs, slide.spec.source).value.get("image-label")
    return found if isinstance(found, Mapping) else None


def _is_label(header: NiftiHeader) -> bool:
    return header.fields["intent_code"] in _LABEL_INTENTS


def _rgb_channels() -> tuple[Mapping[str, Any], ...]:
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    colours = (("Red", "FF0000"), ("Green", "00FF00"), ("Blue", "0000FF"))
    return tuple(
        {"label": label, "color": color, "window": window, "active": True}
        for label, color in colours
    )


def axis_documents(source: Source) -> list[dict[str, str]]:
    """OME-Zarr axes."""
    documents = []
    for axis, unit in zip(source.axes, source.units, strict=True):
        document = {"name": axis, "type": _KINDS[axis]}
        if unit is not None and axis != "c":
            document["unit"] = unit
        documents.append(document)
    return documents
