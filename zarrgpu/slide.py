"""`Slide`: a pyramid of 2-D images under OpenSlide's names.

A whole-slide TIFF and a multiscale OME-Zarr image look the same here. Locations and sizes are ``(x,
y)`` and ``(width, height)``; locations are in the frame of level 0, sizes in pixels of the level
read, as in OpenSlide. Results are ``(height, width, channels)`` in the stored type, without an
alpha channel: what OpenSlide gives as transparent black is the fill value here, which is 0 for
slides and the array's own for OME-Zarr.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from zarrgpu import reader
from zarrgpu.array import Array
from zarrgpu.chunk_cache import ChunkCache
from zarrgpu.closing import Closing
from zarrgpu.color_profile import open_profile
from zarrgpu.devices.resolve import DeviceLike
from zarrgpu.errors import SelectionError
from zarrgpu.group import Group
from zarrgpu.magnification import mpp_step, read_scaled_patches
from zarrgpu.magnified_slide import MagnifiedSlide
from zarrgpu.model import ReadOptions
from zarrgpu.output import output_format
from zarrgpu.patches import Layout, parse_locations, parse_size, patch_request
from zarrgpu.pyramid import Pyramid
from zarrgpu.quickhash import SlideProperties
from zarrgpu.reader import OnError
from zarrgpu.regions import read_icc_profile, read_regions, read_thumbnail
from zarrgpu.selection_reads import ExplainedPlan
from zarrgpu.slide_model import SlideSpec
from zarrgpu.stats import ReadStats


class Slide(Pyramid, Closing):
    """A pyramid image. Made by `zarrgpu.open` or `zarrgpu.open_slide`; may be pickled.

    Parameters
    ----------
    spec : SlideSpec
    levels : tuple of Array
        Finest first.
    associated_images : mapping of str to Array
        Label, macro, thumbnail; axes (y, x, c).
    group : Group, optional
        The Zarr group of an OME-Zarr image.
    """

    def __init__(
        self,
        spec: SlideSpec,
        levels: tuple[Array, ...],
        associated_images: Mapping[str, Array],
        group: Group | None = None,
    ) -> None:
        super().__init__(spec, levels)
        self.associated_images = associated_images
        store = levels[0].source.store
        self._properties = SlideProperties(spec.properties, spec.quickhash, store)
        self.group = group

    def __repr__(self) -> str:
        width, height = self.dimensions
        return (
            f"<zarrgpu.Slide {self.spec.source!r} ({self.spec.vendor}) {width} x {height} px, "
            f"{self.level_count} level(s), {self.channel_count} channel(s) of {self.dtype}>"
        )

    @property
    def properties(self) -> Mapping[str, str]:
        """Vendor properties under OpenSlide's keys.

        ``openslide.quickhash-1`` is read when it is asked for: some chunks of the last level.
        """
        return self._properties

    @property
    def icc_profile(self) -> bytes | None:
        """ICC profile of the image, if it carries one; a file's is read when it is asked for."""
        return read_icc_profile(self)

    @property
    def color_profile(self) -> Any:
        """ICC profile as ``PIL.ImageCms.ImageCmsProfile``, or None, as OpenSlide gives it.

        Raises
        ------
        MissingDependencyError
            Without Pillow; `icc_profile` gives the bytes.
        """
        return open_profile(self.icc_profile)

    def set_cache(self, cache: ChunkCache | int) -> None:
        """Keep decoded chunks of all levels between reads in `cache`, where the reads run.

        Parameters
        ----------
        cache : ChunkCache, int, or an ``openslide.OpenSlideCache``
            Of an integer or OpenSlide's cache only the number of bytes is taken.

        Raises
        ------
        TypeError
            For anything else, as in OpenSlide.
        """
        capacity = getattr(cache, "_capacity", cache)
        if not isinstance(cache, ChunkCache):
            if type(capacity) is not int:
                msg = f"Not a cache object: {cache!r}"
                raise TypeError(msg)
            cache = ChunkCache(capacity)
        for level in self.levels:
            level.source.cache = cache
        self._filled.clear()

    def with_fill_value(self, fill_value: Any) -> Slide:
        """Make the same slide with another value outside of it, and for tiles that are not stored.

        Samplers and loaders take it as any other: ``RandomPatches([s.with_fill_value(255)])``.

        Parameters
        ----------
        fill_value : scalar
            Of the pixels' type, for all channels.
        """
        made = self.filled(fill_value)
        return Slide(made.spec, made.levels, self.associated_images, self.group)

    def at_mpp(self, mpp: float | tuple[float, float]) -> MagnifiedSlide:
        """View the slide at a pixel size, under the same names: its level 0 has it.

        Parameters
        ----------
        mpp : float or (float, float)
            Micrometres per pixel, of both axes or of x and y.

        Raises
        ------
        SelectionError
            If the slide does not state its pixel size.
        """
        return MagnifiedSlide(self, mpp_step(self, mpp), self.associated_images)

    def read_region(
        self,
        location: tuple[int, int],
        level: int,
        size: tuple[int, int],
        **options: Any,
    ) -> Any:
        """Read one region, as an array; `interop.openslide` gives Pillow's images.

        Parameters
        ----------
        location : (int, int)
            (x, y) of the upper left pixel in the level-0 frame.
        level : int
        size : (int, int)
            (width, height) in pixels of `level`.
        **options
            As for `read_regions` but `on_error`; `out` has the shape of the result here.

        Returns
        -------
        array, shape (height, width, channels), or (channels, height, width) for ``layout="NCHW"``
        """
        return _read_one(self.read_regions, location, (level, size), options)

    def read_regions(
        self,
        locations: ArrayLike,
        level: int,
        size: tuple[int, int],
        *,
        position: Mapping[str, int] | None = None,
        layout: Layout = "NHWC",
        dtype: DTypeLike | None = None,
        normalize: tuple[ArrayLike, ArrayLike] | None = None,
        fill_value: Any = None,
        device: DeviceLike = None,
        out: Any = None,
        options: ReadOptions | None = None,
        on_error: OnError = "raise",
        stats: ReadStats | None = None,
    ) -> Any:
        """Read N regions of one size in one plan: each tile is fetched and decoded once.

        Parameters
        ----------
        locations : int array, shape (N, 2)
            (x, y) of each upper left pixel in the level-0 frame; may be negative. What lies outside
            of the slide is its fill value. At a coarser level the region begins at the nearest
            pixel of that level, ``floor(location / downsample + 0.5)``: nothing is interpolated,
            where OpenSlide shifts by the fraction of a pixel. An empty list gives N = 0.
        level : int
        size : (int, int)
            (width, height) in pixels of `level`.
        position : mapping of str to int, optional
            Index on the axes other than y, x and c (``{"z": 3, "t": 0}``), of the level read; 0
            where not given.
        layout : "NHWC" or "NCHW"
        dtype : dtype, optional
            float16, bfloat16 (ml_dtypes', also by name), float32 or float64 to convert to, or an
            integer type that holds every stored one; default the stored type.
        normalize : (mean, std), optional
            Scalars or one value per channel, in stored units; the result is float32 unless
            `dtype` says otherwise.
        fill_value : scalar, optional
            Of what lies outside of the slide and of tiles that are not stored, in stored units;
            default the slide's own: 0, or what an OME-Zarr image says.
        device : None, str or Device
        out : array, optional
            C-contiguous array of the device, with the shape of the result, to read into.
            On CUDA after what CuPy's current stream was given: wait for others yourself.
        options : ReadOptions, optional
        on_error : "raise" or "mask"
            Whether a tile that cannot be read raises, or only its regions are marked; they are the
            fill value where they could not be read.
        stats : ReadStats, optional
            What the read has cost is added to it.

        Returns
        -------
        regions : array of the device, shape (N, height, width, channels) or (N, channels, height,
            width)
        ok : bool array, shape (N,)
            Whether all of each region was read; only with ``on_error="mask"``.

        Raises
        ------
        SelectionError
            For locations that are no integers of shape (N, 2), a negative size, a level or
            position that is not there, or an `out` that does not fit.
        DataError
            If what is stored cannot be read; the message names file, level and tile.
        DeviceUnavailableError
        """
        points = parse_locations(locations)
        return read_regions(
            (self,),
            np.zeros(len(points), np.int32),
            points,
            size,
            level=(level,),
            position=position,
            layout=layout,
            dtype=dtype,
            normalize=normalize,
            fill_value=fill_value,
            device=device,
            out=out,
            options=options,
            on_error=on_error,
            stats=stats,
        )

    def read_region_mpp(
        self,
        location: tuple[int, int],
        mpp: float | tuple[float, float],
        size: tuple[int, int],
        **options: Any,
    ) -> Any:
        """Read one region at a pixel size; see `read_regions_mpp` and `read_region`."""
        return _read_one(self.read_regions_mpp, location, (mpp, size), options)

    def read_regions_mpp(
        self,
        locations: ArrayLike,
        mpp: float | tuple[float, float],
        size: tuple[int, int],
        **options: Any,
    ) -> Any:
        """Read N regions of one size at a pixel size.

        They are resampled from the nearest finer level with an antialiasing triangle filter, the
        same on every device; beyond level 0 pixels are interpolated linearly. `resampling` says
        what each pixel is. A level that is up to 1 % coarser counts as finer: pixel sizes are
        rounded in files. Regions begin at their location exactly, between pixels of the level read
        if need be. A pixel whose centre lies outside of the slide is the fill value.

        Parameters
        ----------
        locations : int array, shape (N, 2)
            (x, y) of each upper left corner in the level-0 frame; may be negative.
        mpp : float or (float, float)
            Micrometres per pixel of the result, of both axes or of x and y.
        size : (int, int)
            (width, height) in pixels of the result.
        **options
            As for `read_regions`; `position` is of level 0, whatever level is read.

        Returns
        -------
        regions, ok
            As `read_regions` gives them.

        Raises
        ------
        SelectionError
            As there; if the slide does not state its pixel size, or its pixels' type is not
            resampled.
        """
        points = parse_locations(locations)
        index = np.zeros(len(points), np.int32)
        return read_regions((self,), index, points, size, mpp=mpp, **options)

    def read_scaled(
        self, corners: ArrayLike, step: ArrayLike, size: tuple[int, int], **options: Any
    ) -> tuple[Any, NDArray[np.bool_]]:
        """Read regions whose pixels are `step` level-0 pixels wide and high.

        Parameters
        ----------
        corners : float array, shape (N, 2)
            (x, y) of each upper left corner in level-0 pixels.
        step : (float, float)
        size : (int, int)
            (width, height) in pixels of the result.
        **options
            As for `read_regions`.

        Returns
        -------
        regions, ok
        """
        points = np.asarray(corners, np.float64).reshape(-1, 2)
        slide = self.filled(options.pop("fill_value", None))
        index, steps = np.zeros(len(points), np.int32), np.asarray(step, np.float64)[None]
        return read_scaled_patches((slide,), index, points, steps, parse_size(size), **options)

    def plan_regions(
        self,
        locations: ArrayLike,
        level: int,
        size: tuple[int, int],
        *,
        position: Mapping[str, int] | None = None,
        device: DeviceLike = None,
    ) -> ExplainedPlan:
        """Plan a `read_regions` without doing it; `explain` says what it would do."""
        points = parse_locations(locations)
        request = patch_request(
            (self,), np.zeros(len(points), np.int32), points, (level,), size, position
        )
        source = self.levels[level].source
        plan = reader.plan_read((source,), request, options=ReadOptions())
        return ExplainedPlan(plan, (source,), output_format(source.spec.dtype), device)

    def get_thumbnail(self, size: tuple[int, int]) -> NDArray[Any]:
        """Whole slide, reduced by averaging to fit into `size`; never enlarged.

        The result has the size that OpenSlide's has; each of its pixels is the mean of the area
        that it covers, where OpenSlide resamples with Lanczos' filter.

        Parameters
        ----------
        size : (int, int)
            Largest (width, height).

        Returns
        -------
        NumPy array, shape (height, width, channels), stored type
        """
        return read_thumbnail(self, size)


def _read_one(
    read: Callable[..., Any],
    location: tuple[int, int],
    what: tuple[Any, Any],
    options: dict[str, Any],
) -> Any:
    """Read one region by a method that reads many."""
    out = options.pop("out", None)
    if options.get("on_error", "raise") != "raise":
        msg = "on_error is for read_regions: a single region is read or raises"
        raise SelectionError(msg)
    if out is None:
        return read([location], *what, **options)[0]
    read([location], *what, out=out[None], **options)
    return out
