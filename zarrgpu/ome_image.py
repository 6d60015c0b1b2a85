"""`OmeZarrImage`: a `Slide` that knows what OME-Zarr says of it: space, channels, labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zarrgpu.array import Array
from zarrgpu.devices.resolve import DeviceLike
from zarrgpu.errors import (
    MetadataError,
    NodeNotFoundError,
    SelectionError,
    UnsupportedFormatError,
)
from zarrgpu.formats.document import shown
from zarrgpu.formats.ngff_channels import Channel, ImageLabel, parse_channel, parse_image_label
from zarrgpu.formats.ngff_transforms import Matrix
from zarrgpu.formats.ngff_version import metadata_of
from zarrgpu.formats.ome import Multiscale, multiscale_names
from zarrgpu.group import Group
from zarrgpu.model import ReadOptions
from zarrgpu.output import output_format
from zarrgpu.patches import box_request, check_level, parse_locations, read_boxes
from zarrgpu.pyramid import level_pixels
from zarrgpu.scenes import load_matrix
from zarrgpu.slide import Slide
from zarrgpu.slide_model import SlideSpec

Reopen = Callable[[Group, int], "OmeZarrImage"]


class OmeZarrImage(Slide):
    """A multiscale OME-Zarr image. Made by `zarrgpu.open`; may be pickled.

    Everything that a `Slide` does, and what the metadata says of space, channels and labels.

    Parameters
    ----------
    spec : SlideSpec
    levels : tuple of Array
        Finest first.
    associated_images : mapping of str to Array
    group : Group
    multiscale : Multiscale
    reopen : callable
        Opens another image of the same group.
    """

    group: Group

    def __init__(
        self,
        spec: SlideSpec,
        levels: tuple[Array, ...],
        associated_images: Mapping[str, Array],
        group: Group,
        *,
        multiscale: Multiscale,
        reopen: Reopen,
    ) -> None:
        super().__init__(spec, levels, associated_images, group=group)
        self.multiscale = multiscale
        self._reopen = reopen

    @property
    def units(self) -> tuple[str | None, ...]:
        """Unit of each axis as stated, such as ``"micrometer"``."""
        return self.multiscale.units

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Names, colours and windows of the channels, where ``omero`` has them."""
        return tuple(parse_channel(fields) for fields in self.spec.channels)

    def with_fill_value(self, fill_value: Any) -> OmeZarrImage:
        """As `Slide.with_fill_value`."""
        made = self.filled(fill_value)
        return self.replaced(made.spec, made.levels)

    def replaced(self, spec: SlideSpec, levels: tuple[Array, ...]) -> OmeZarrImage:
        """Make the same image with another spec and its levels."""
        return OmeZarrImage(
            spec,
            levels,
            self.associated_images,
            self.group,
            multiscale=self.multiscale,
            reopen=self._reopen,
        )

    @property
    def multiscales(self) -> tuple[str, ...]:
        """Names of all images of the group, of which this is one; empty where one has none."""
        return multiscale_names(self.group.attrs, self.spec.source)

    def open_multiscale(self, image: int | str) -> OmeZarrImage:
        """Open another image of the same group, by its index or its name.

        Raises
        ------
        SelectionError
            If there is none, or several have the name.
        """
        names = self.multiscales
        if isinstance(image, str):
            found = [index for index, name in enumerate(names) if name == image]
            if len(found) != 1:
                msg = f"{self.spec.source!r} has {len(found)} images {image!r}, of {list(names)}"
                raise SelectionError(msg)
            image = found[0]
        return self._reopen(self.group, image)

    def affine(self, level: int = 0, system: str | None = None) -> Matrix:
        """Matrix from array indices of a level to physical space.

        Parameters
        ----------
        level : int
        system : str, optional
            Name of a coordinate system of 0.6 (`coordinate_systems`); default the intrinsic one.

        Returns
        -------
        float64 array, shape (m + 1, n + 1)
            ``affine @ (*index, 1)`` is ``(*point, 1)``: indices in array order (`axes`), the centre
            of a pixel is a whole number, points in the units of the system's axes.

        Raises
        ------
        SelectionError
            If there is no such level or system, or the image does not say how it lies in space.
        UnsupportedFormatError
            If the way there is no matrix (``displacements``, ``coordinates``).
        MetadataError
            If it is malformed.
        """
        return self.multiscale.affine(level, system, lambda path: load_matrix(self.group, path))

    @property
    def coordinate_systems(self) -> tuple[str, ...]:
        """Names of the coordinate systems (0.6), the intrinsic one first; one empty name before."""
        return tuple(system.name for system in self.multiscale.coordinate_systems)

    @property
    def labels(self) -> Labels:
        """Label images, by name; opened when they are asked for."""
        return Labels(self)

    @property
    def image_label(self) -> ImageLabel | None:
        """Colours and properties of label values, if this is a label image."""
        return parse_image_label(self.group.attrs)

    def read_labels(
        self,
        name: str,
        locations: ArrayLike,
        level: int,
        size: tuple[int, int],
        *,
        position: Mapping[str, int] | None = None,
        device: DeviceLike = None,
        out: Any = None,
        options: ReadOptions | None = None,
    ) -> Any:
        """Read a label image where `read_regions` with the same arguments reads this image.

        Axes that the label image does not have, or of length 1, are the same for all positions.

        Parameters
        ----------
        name : str
            Of `labels`.
        locations, level, size, position, device, out, options
            As for `read_regions`; the frame is that of this image.

        Returns
        -------
        array of the device, shape (N, height, width), stored integers

        Raises
        ------
        SelectionError
            If no level of the label image has the size of this level.
        MetadataError
            If its pixels are no integers, or it says that it lies elsewhere.
        """
        label = self.labels[name]
        level = check_level(level, self.level_count, self.spec.source)
        chosen = _aligned_level(self, level, label)
        points = parse_locations(locations)
        downsample = self.level_downsamples[level]
        pixels = points if downsample == 1.0 else level_pixels(points, downsample)
        sizes = dict(zip(label.axes, label.levels[chosen].shape, strict=True))
        request = box_request(
            (label,),
            np.zeros(len(points), np.int32),
            pixels,
            (chosen,),
            size,
            {axis: n for axis, n in (position or {}).items() if sizes.get(axis, 1) > 1},
        )
        dtype = label.levels[chosen].source.spec.dtype
        pixels_of, _ = read_boxes(
            (label,),
            (chosen,),
            request,
            layout="NHWC",
            output=output_format(dtype),
            device=device,
            out=None if out is None else out[..., None],
            options=options,
        )
        return pixels_of[..., 0] if out is None else out


class Labels(Mapping[str, OmeZarrImage]):
    """Label images of an image, by the names that its ``labels`` group lists.

    Parameters
    ----------
    image : OmeZarrImage
    """

    def __init__(self, image: OmeZarrImage) -> None:
        self._image = image
        self._names: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return f"<zarrgpu labels {list(self)} of {self._image.spec.source!r}>"

    def __getitem__(self, name: str) -> OmeZarrImage:
        node = self._image.group[f"labels/{name}"]
        if not isinstance(node, OmeZarrImage):
            msg = f"label {name!r} of {self._image.spec.source!r} is no multiscale image"
            raise UnsupportedFormatError(msg)
        return node

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed())

    def __len__(self) -> int:
        return len(self._listed())

    def __contains__(self, name: object) -> bool:
        return name in self._listed()

    def _listed(self) -> tuple[str, ...]:
        if self._names is None:
            self._names = self._read_names()
        return self._names

    def _read_names(self) -> tuple[str, ...]:
        try:
            labels = self._image.group["labels"]
        except NodeNotFoundError:
            return ()
        if not isinstance(labels, Group):
            return ()
        root = metadata_of(labels.attrs, labels.metadata.source)
        if "labels" not in root.value:
            return tuple(labels.group_keys())
        names = root.value["labels"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            message = f"expected a list of names, got {shown(names)}"
            raise root.fail(message, "labels", kind="type")
        return tuple(names)


def _aligned_level(image: OmeZarrImage, level: int, label: OmeZarrImage) -> int:
    """Level of a label image whose pixels are those of a level of its image."""
    wanted = image.level_dimensions[level]
    if label.dtype.kind not in "iu":
        message = f"label pixels must be integers, got {label.dtype}"
        raise MetadataError(message, source=label.spec.source, kind="type")
    if wanted not in label.level_dimensions:
        msg = (
            f"{label.spec.source!r} has no level of {wanted[0]} x {wanted[1]} px, as level {level} "
            f"of its image has, only {list(label.level_dimensions)}; read it by itself"
        )
        raise SelectionError(msg)
    chosen = label.level_dimensions.index(wanted)
    if label.channel_count > 1:
        msg = f"{label.spec.source!r} has {label.channel_count} channels; read it by itself"
        raise SelectionError(msg)
    _check_place(image, level, label, chosen)
    return chosen


def _check_place(image: OmeZarrImage, level: int, label: OmeZarrImage, chosen: int) -> None:
    """Refuse a label image that says of itself that it lies elsewhere than its image."""
    for axis in "yx":
        here, there = _line(image, level, axis), _line(label, chosen, axis)
        if here is None or there is None:
            continue
        length = image.levels[level].shape[image.axes.index(axis)]
        ends = np.array([0.0, length - 1.0])
        apart = np.abs(here[0] * ends + here[1] - there[0] * ends - there[1])
        # half a pixel at either end of the image: beyond that, pixels belong to others
        if apart.max() > abs(here[0]) / 2:
            message = (
                f"pixels of level {chosen} lie up to {apart.max() / abs(here[0]):.3g} pixels away "
                f"from those of its image along {axis}; read it by itself"
            )
            raise MetadataError(message, source=label.spec.source)


def _line(image: OmeZarrImage, level: int, axis: str) -> tuple[float, float] | None:
    """Scale and translation along an axis of known unit; None where not stated."""
    matrix = image.multiscale.named[level]
    index = image.axes.index(axis)
    if matrix is None or image.units[index] is None:
        return None
    step: NDArray[np.float64] = matrix[index]
    return float(step[index]), float(step[-1])
