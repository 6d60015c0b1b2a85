"""Law: a region of an OME-Zarr image is what NumPy slicing of its array gives, in any axis order.

Images are written by zarr-python: 0.4 as Zarr v2, 0.5 as Zarr v3 in shards.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zarrgpu as zg
from tests.ngff_cases import datasets_06, system, wrap
from zarrgpu.errors import MetadataError, SelectionError, UnsupportedFormatError
from zarrgpu.formats.ome import parse_multiscale

zarr = pytest.importorskip("zarr")

AXES = ("yx", "cyx", "zyx", "czyx", "tcyx", "tczyx", "tzyx", "yxc", "zyxc", "xyc", "cxy")
SIZES = {"t": 2, "c": 3, "z": 4, "y": 61, "x": 83}
KINDS = {"t": "time", "c": "channel"}
UNIT = "micrometer"


def axis(name: str, unit: str | None = UNIT) -> dict[str, str]:
    kind = KINDS.get(name, "space")
    return {"name": name, "type": kind} | ({"unit": unit} if unit and kind == "space" else {})


def scale_of(axes: str, factor: float, x: float = 0.5, y: float = 0.25) -> dict[str, Any]:
    sizes = {"x": x * factor, "y": y * factor}
    return {"type": "scale", "scale": [float(sizes.get(a, 1)) for a in axes]}


def write_image(
    path: Path,
    axes: str,
    version: str,
    *,
    shapes: list[dict[str, int]] | None = None,
    dtype: str = "uint16",
    image: dict[str, Any] | None = None,
    **ome: Any,
) -> list[np.ndarray]:
    """Write an image and return its levels; `image` replaces parts of the multiscale document."""
    levels = shapes or [SIZES, {**SIZES, "y": 30, "x": 41}, {**SIZES, "y": 17, "x": 20}]
    document = {
        "name": "test",
        "axes": [axis(a) for a in axes],
        "datasets": [
            {"path": f"s{i}", "coordinateTransformations": [scale_of(axes, 2**i)]}
            for i in range(len(levels))
        ],
    }
    document |= image or {}
    if version == "0.5":
        attributes = {"ome": {"version": "0.5", "multiscales": [document], **ome}}
    else:
        attributes = {"multiscales": [{"version": version, **document}], **ome}
    zarr_format = 3 if version == "0.5" else 2
    group = zarr.create_group(path, attributes=attributes, zarr_format=zarr_format)
    random = np.random.default_rng(len(axes))
    written = []
    for index, sizes in enumerate(levels):
        shape = tuple(sizes[a] for a in axes)
        data = random.integers(1, 250, shape).astype(dtype)
        chunks = tuple(min(n, 16 if a in "yx" else 1) for a, n in zip(axes, shape, strict=True))
        shards = None if zarr_format == 2 else tuple(2 * n for n in chunks)
        array = group.create_array(
            f"s{index}", shape=shape, chunks=chunks, shards=shards, dtype=dtype, fill_value=251
        )
        array[...] = data
        written.append(data)
    return written


def region(level: np.ndarray, axes: str, x: int, y: int, size: tuple[int, int], **at: int) -> Any:
    """Expected (height, width, channels) by NumPy, 251 outside of the image."""
    picked = level[tuple(at.get(a, 0) if a in "tz" else slice(None) for a in axes)]
    left = [a for a in axes if a not in "tz"]
    picked = picked.transpose([left.index(a) for a in "yxc" if a in left])
    picked = picked if "c" in left else picked[..., None]
    rows = np.arange(y, y + size[1])
    columns = np.arange(x, x + size[0])
    height, width = picked.shape[:2]
    got = picked[np.clip(rows, 0, height - 1)][:, np.clip(columns, 0, width - 1)].copy()
    got[(rows < 0) | (rows >= height)] = 251
    got[:, (columns < 0) | (columns >= width)] = 251
    return got


@pytest.fixture(scope="module", params=[(a, v) for a in AXES for v in ("0.4", "0.5")])
def image(request, tmp_path_factory):
    axes, version = request.param
    path = tmp_path_factory.mktemp("ome") / f"{axes}.ome.zarr"
    return path, axes, write_image(path, axes, version)


def test_regions_equal_numpy(image):
    path, axes, levels = image
    slide = zg.open_slide(path)
    assert slide.axes == tuple(axes)
    assert slide.level_dimensions == ((83, 61), (41, 30), (20, 17))
    assert slide.channel_count == (3 if "c" in axes else 1)
    assert slide.dtype == np.uint16
    assert slide.mpp == (0.5, 0.25)
    assert slide.levels[1].shape == levels[1].shape
    random = np.random.default_rng(0)
    for level, data in enumerate(levels):
        downsample = slide.level_downsamples[level]
        for _ in range(4):
            x, y = random.integers(-9, 80, 2).tolist()
            at = {a: int(random.integers(0, SIZES[a])) for a in "tz" if a in axes}
            location = (round(x * downsample), round(y * downsample))
            expected = region(data, axes, x, y, (21, 13), **at)
            got = slide.read_region(location, level, (21, 13), position=at)
            assert np.array_equal(got, expected)
            planes = slide.read_region(location, level, (21, 13), position=at, layout="NCHW")
            assert np.array_equal(planes, expected.transpose(2, 0, 1))
            floats = slide.read_region(
                location, level, (21, 13), position=at, normalize=(3, 2), dtype="f8"
            )
            assert np.allclose(floats, (expected.astype(float) - 3) / 2, atol=1e-4)


def test_without_a_position_the_first_plane_is_read(image):
    path, axes, levels = image
    slide = zg.open_slide(path)
    expected = region(levels[0], axes, 0, 0, (83, 61))
    assert np.array_equal(slide.read_region((0, 0), 0, (83, 61)), expected)
    last = region(levels[2], axes, 0, 0, (20, 17))
    assert np.array_equal(slide.get_thumbnail((20, 20)), last)
    for name in "tz":
        if name in axes:
            for value in (-1, SIZES[name], 0.0, "0", None):
                with pytest.raises(SelectionError, match=f"{name}=.* is outside of 0"):
                    slide.read_region((0, 0), 0, (2, 2), position={name: value})
        else:
            with pytest.raises(SelectionError, match=f"no axis '{name}'"):
                slide.read_region((0, 0), 0, (2, 2), position={name: 0})


def test_images_pickle_and_load(image):
    path, axes, levels = image
    slide = pickle.loads(pickle.dumps(zg.open_slide(path)))
    sampler = zg.RandomPatches(slide, size=12, level=1, num_patches=9)
    for batch in zg.PatchLoader(sampler, batch_size=4, layout="NHWC", device="cpu"):
        starts = np.floor(batch.locations / slide.level_downsamples[1] + 0.5).astype(int)
        for (x, y), pixels in zip(starts.tolist(), batch.images, strict=True):
            assert np.array_equal(pixels, region(levels[1], axes, x, y, (12, 12)))


def test_levels_of_factors_that_are_not_whole(tmp_path):
    sizes = [{"y": 100, "x": 90}, {"y": 71, "x": 64}, {"y": 33, "x": 30}]
    levels = write_image(tmp_path / "a", "yx", "0.5", shapes=sizes)
    slide = zg.open_slide(tmp_path / "a")
    assert slide.level_downsamples == (1.0, (90 / 64 + 100 / 71) / 2, (90 / 30 + 100 / 33) / 2)
    assert [slide.get_best_level_for_downsample(d) for d in (1, 1.4, 1.41, 3, 3.02)] == [
        0, 0, 1, 1, 2
    ]  # fmt: skip
    for level, data in enumerate(levels):
        for location in ((0, 0), (7, 11), (50, 33)):
            x, y = (int(np.floor(v / slide.level_downsamples[level] + 0.5)) for v in location)
            got = slide.read_region(location, level, (9, 8))
            assert np.array_equal(got, region(data, "yx", x, y, (9, 8)))


def halved(image: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 elements; a last one that is alone stands for itself."""
    padded = np.pad(image, [(0, n % 2) for n in image.shape], mode="edge").astype(float)
    return padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2).mean((1, 3))


def pyramid_of_scales(path: Path, first: np.ndarray, scales: list[tuple[float, float]]) -> None:
    """Levels halved again and again; scales of y and x as they are given."""
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": list(scale)}]}
        for i, scale in enumerate(scales)
    ]
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    group = zarr.create_group(path, attributes={"ome": ome})
    level = first
    for index in range(len(scales)):
        group.create_array(str(index), data=np.floor(level + 0.5).astype("u1"), chunks=(64, 64))
        level = halved(level)


def test_coarse_levels_lie_where_their_scales_say(tmp_path):
    """Sizes are rounded up at each level; pixels are as wide as the scale says nevertheless."""
    first = np.zeros((741, 555), np.uint8)
    first[:, 512:528] = 200  # one pixel of the level that is 16 times coarser
    pyramid_of_scales(tmp_path / "a", first, [(0.25 * 2**k,) * 2 for k in range(5)])
    image = zg.open_slide(tmp_path / "a")
    assert image.level_dimensions[4] == (35, 47)
    assert image.level_downsamples == (1.0, 2.0, 4.0, 8.0, 16.0)
    assert image.read_region((512, 0), 4, (2, 1), device="cpu")[0, :, 0].tolist() == [200, 0]
    coarse = image.read_region_mpp((496, 0), 4.0, (3, 1), device="cpu")[0, :, 0]
    assert coarse.tolist() == [0, 200, 0]
    view = image.at_mpp(0.5)  # whose levels lie as they do
    assert view.level_downsamples == (1.0, 2.0, 4.0, 8.0)
    assert view.read_region((256, 0), 3, (2, 1), device="cpu")[0, :, 0].tolist() == [200, 0]


@pytest.mark.parametrize("planes", [8, 7])
def test_a_position_at_a_pixel_size_is_one_of_level_0(tmp_path, planes):
    """Coarse levels may have fewer planes: the one that holds the plane asked for is read."""
    shapes = [{"z": -(-planes // k), "y": 64 // k, "x": 64 // k} for k in (1, 2, 4)]
    write_image(tmp_path / "a", "zyx", "0.5", shapes=shapes)
    group = zarr.open_group(tmp_path / "a")
    for level, factor in enumerate((1, 2, 4)):
        array = group[f"s{level}"]
        firsts = np.arange(array.shape[0]) * factor  # of the planes of level 0 that each holds
        array[...] = np.broadcast_to(firsts[:, None, None], array.shape).astype(array.dtype)
    image = zg.open_slide(tmp_path / "a", mpp=1.0)
    for z in range(planes):
        at = {"z": z}
        for level, mpp in enumerate((1.0, 2.0, 4.0)):
            first = z >> level << level
            got = image.read_region_mpp((8, 8), mpp, (5, 5), position=at, device="cpu")
            assert (got == first).all()
            off = image.read_region_mpp((9, 9), mpp, (5, 5), position=at, device="cpu")
            assert (off == first).all()
            view = image.at_mpp(mpp).read_region((2, 2), 0, (5, 5), position=at, device="cpu")
            assert (view == first).all()
            sampler = zg.RandomPatches(image, size=4, mpp=mpp, num_patches=2)
            batch = next(iter(zg.PatchLoader(sampler, position=at, device="cpu")))
            assert (batch.images == first).all()
    with pytest.raises(SelectionError, match=f"z={planes} is outside of 0"):
        image.read_region_mpp((0, 0), 4.0, (5, 5), position={"z": planes})
    with pytest.raises(SelectionError, match="z=2 is outside of 0"):
        image.read_region((0, 0), 2, (5, 5), position={"z": 2})


@pytest.mark.parametrize(
    "scales",
    [
        [(1.0, 1.0), (1.0, 1.0)],  # no scales at all
        [(1.0, 1.0), (4.0, 4.0)],  # not those of the sizes
        [(1.0, 1.0), (2.0, 1.99)],  # x and y differ
    ],
)
def test_scales_that_do_not_lead_to_the_sizes_are_not_taken(tmp_path, scales):
    pyramid_of_scales(tmp_path / "a", np.ones((101, 71), np.uint8), scales)
    image = zg.open_slide(tmp_path / "a")
    assert image.level_downsamples == (1.0, (101 / 51 + 71 / 36) / 2)


def test_a_channel_that_is_none_does_not_move_the_others(tmp_path):
    omero = {"channels": [7, {"label": "second", "color": "00FF00"}]}
    write_image(tmp_path / "a", "cyx", "0.5", omero=omero)
    assert [channel.name for channel in zg.open(tmp_path / "a").channels] == ["", "second"]


def test_a_level_of_another_type_is_read_as_it_is(tmp_path):
    write_image(tmp_path / "a", "yx", "0.5")
    group = zarr.open_group(tmp_path / "a")
    data = np.random.default_rng(1).random((30, 41))
    group.create_array("s1", data=data, chunks=(8, 8), overwrite=True)
    slide = zg.open_slide(tmp_path / "a")
    got = slide.read_region((0, 0), 1, (41, 30))
    assert got.dtype == np.float64
    assert np.array_equal(got[..., 0], data)


# ---------------------------------------------------------------------------------------- metadata


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("nanometer", (0.0005, 0.00025)),
        ("micrometer", (0.5, 0.25)),
        ("millimeter", (500.0, 250.0)),
        (None, (None, None)),
        ("second", (None, None)),
        ("inch", (12_700.0, 6_350.0)),
        ("picometer", (5e-7, 2.5e-7)),
        ("pixel", (None, None)),
    ],
)
def test_pixel_size_is_in_micrometres_where_the_unit_is_known(tmp_path, version, unit, expected):
    write_image(tmp_path / "a", "cyx", version, image={"axes": [axis(a, unit) for a in "cyx"]})
    found = zg.open_slide(tmp_path / "a").mpp
    assert found == (pytest.approx(expected) if expected[0] else expected)


def test_scales_of_image_and_dataset_multiply(tmp_path):
    whole = [{"type": "scale", "scale": [1.0, 4.0, 10.0]}]
    write_image(tmp_path / "a", "cyx", "0.5", image={"coordinateTransformations": whole})
    assert zg.open_slide(tmp_path / "a").mpp == (5.0, 1.0)
    plain = [{"path": "s0"}, {"path": "s1"}]
    write_image(tmp_path / "b", "cyx", "0.4", image={"datasets": plain})
    assert zg.open_slide(tmp_path / "b").mpp == (None, None)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_channels_are_given_as_they_are(tmp_path, version):
    channels = [{"label": "DAPI", "color": "0000FF", "window": {"start": 0, "end": 9}}, {}]
    write_image(tmp_path / "a", "cyx", version, omero={"channels": channels})
    assert zg.open_slide(tmp_path / "a").spec.channels == tuple(channels)


def test_early_versions_have_five_axes_or_names_of_them(tmp_path):
    old = {"multiscales": [{"version": "0.1", "datasets": [{"path": "0"}]}]}
    assert parse_multiscale(old, "s").axes == ("t", "c", "z", "y", "x")
    named = {"multiscales": [{"version": "0.3", "axes": ["y", "x"], "datasets": [{"path": "0"}]}]}
    assert parse_multiscale(named, "s").axes == ("y", "x")
    own = {"version": "7 of my own", "multiscales": named["multiscales"]}
    assert parse_multiscale(own, "s").version == "0.3"


@pytest.mark.parametrize(
    ("stated", "read"),
    [
        ("T:time C:channel Z:space Y:space X:space", "tczyx"),
        ("angle:other row:space column:space", ("angle", "y", "x")),
        ("z:space lat:space lon:space", "zyx"),
        ("c:time ch:channel a:space b:space", ("t", "c", "y", "x")),
        ("X:space Y:space", "xy"),
        ("x:space C:channel Y:space", "xcy"),
        ("X:space Y:space x:space", None),
        ("z:space a:space", None),
        ("a:space Z:space b:space", None),
        ("y:space b:space", None),  # the other one may be anything
        ("y:other a:space b:space", None),
        ("a:space", None),
        ("a: b:", None),
    ],
)
def test_axes_of_other_names_are_told_by_their_types(stated, read):
    axes = [dict(zip(("name", "type"), each.split(":"), strict=True)) for each in stated.split()]
    old = {"axes": axes, "datasets": [{"path": "0"}]}
    new = {
        "coordinateSystems": [system("physical", axes)],
        "datasets": datasets_06([[2.0] * len(axes)]),
    }
    for attributes in (wrap("0.5", multiscales=[old]), wrap("0.6", multiscales=[new])):
        if read is None:
            with pytest.raises(MetadataError, match=r"of space|type space"):
                parse_multiscale(attributes, "s")
            continue
        found = parse_multiscale(attributes, "s")
        assert found.axes == tuple(read)
        names = [axis.name for axis in found.coordinate_systems[0].axes]
        assert names == [axis["name"] for axis in axes]


GOOD = {"axes": [axis("y"), axis("x")], "datasets": [{"path": "0"}], "version": "0.4"}


@pytest.mark.parametrize(
    ("change", "location"),
    [
        ({"axes": None}, "multiscales.0.axes"),
        ({"axes": "drop"}, "multiscales.0.axes"),
        ({"axes": [{"name": "y"}, {"name": "y"}]}, "multiscales.0.axes"),
        ({"axes": [{"name": "y"}, {}]}, "multiscales.0.axes.1"),
        ({"axes": [{"name": "z"}, {"name": "x"}]}, "multiscales.0.axes"),
        ({"datasets": "drop"}, "multiscales.0.datasets"),
        ({"datasets": []}, "multiscales.0.datasets"),
        ({"datasets": [{"path": "0"}, 5]}, "multiscales.0.datasets.1"),
        ({"datasets": [{}]}, "multiscales.0.datasets.0.path"),
        ({"datasets": [{"path": 0}]}, "multiscales.0.datasets.0.path"),
        (
            {"datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale"}]}]},
            "multiscales.0.datasets.0.coordinateTransformations.0.scale",
        ),
    ],
)
def test_broken_metadata_is_located(change, location):
    image = {k: v for k, v in {**GOOD, **change}.items() if v != "drop"}
    for attributes, prefix in (
        ({"multiscales": [image]}, ""),
        ({"ome": {"version": "0.5", "multiscales": [image]}}, "ome."),
    ):
        with pytest.raises(MetadataError) as caught:
            parse_multiscale(attributes, "s://image")
        assert ".".join(map(str, caught.value.location)) == prefix + location
        assert caught.value.source == "s://image"
        assert location in str(caught.value)


@pytest.mark.parametrize("version", ["0.7", "0.9.dev1", "1.0", 5, None, "five"])
def test_other_versions_are_refused_by_name(version):
    with pytest.raises(UnsupportedFormatError, match="is not read yet, only"):
        parse_multiscale({"ome": {"version": version, "multiscales": [GOOD]}}, "s")


def test_levels_that_do_not_belong_together_are_refused(tmp_path):
    sizes = [{"y": 20, "x": 20, "c": 2}, {"y": 40, "x": 10, "c": 2}]
    write_image(tmp_path / "a", "cyx", "0.5", shapes=sizes)
    with pytest.raises(MetadataError, match=r"level 1 of shape \(2, 40, 10\).*larger than level 0"):
        zg.open(tmp_path / "a")
    sizes = [{"y": 20, "x": 20, "c": 3}, {"y": 10, "x": 10, "c": 2}]
    write_image(tmp_path / "b", "cyx", "0.4", shapes=sizes)
    with pytest.raises(MetadataError, match="another number of channels"):
        zg.open(tmp_path / "b")
    three = {"axes": [axis(a) for a in "cyx"], "datasets": [{"path": "s0"}]}
    write_image(tmp_path / "c", "yx", "0.5", image=three)
    with pytest.raises(MetadataError, match="'s0' is no array of 3 axes"):
        zg.open(tmp_path / "c")
    write_image(tmp_path / "d", "yx", "0.5", image={"datasets": [{"path": "s0"}, {"path": "s9"}]})
    place = r"ome\.multiscales\.0\.datasets\.1\.path: level 's9' is no array"
    with pytest.raises(MetadataError, match=place):
        zg.open(tmp_path / "d")


# ----------------------------------------------------------------------------- groups around images


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_images_of_plates_wells_collections_and_labels_are_slides(tmp_path, version):
    zarr_format = 3 if version == "0.5" else 2

    def group(path: str, **ome: Any) -> None:
        attributes = {"ome": {"version": "0.5", **ome}} if version == "0.5" else ome
        zarr.create_group(tmp_path / path, attributes=attributes, zarr_format=zarr_format)

    well = {"path": "A/1", "rowIndex": 0, "columnIndex": 0}
    group("plate", plate={"wells": [well], "rows": [{"name": "A"}], "columns": [{"name": "1"}]})
    group("plate/A/1", well={"images": [{"path": "0"}]})
    group("raw", **{"bioformats2raw.layout": 3})
    images = {
        path: write_image(tmp_path / path, "cyx", version)
        for path in ("plate/A/1/0", "raw/0", "whole")
    }
    group("whole/labels", labels=["cells"])
    label = write_image(tmp_path / "whole/labels/cells", "yx", version, dtype="int32")
    for path, kind in (
        ("plate", zg.Plate),
        ("plate/A/1", zg.Well),
        ("raw", zg.Group),
        ("whole/labels", zg.Group),
    ):
        assert isinstance(zg.open(tmp_path / path), kind), path
    for outer, inner in (("plate", "A/1/0"), ("plate/A/1", "0"), ("raw", "0")):
        slide = zg.open(tmp_path / outer)[inner]
        assert isinstance(slide, zg.Slide)
        assert np.array_equal(
            slide.read_region((0, 0), 0, slide.dimensions, layout="NCHW"),
            images[f"{outer}/{inner}"][0],
        )
    whole = zg.open_slide(tmp_path / "whole")
    cells = whole.group["labels/cells"]
    assert isinstance(cells, zg.Slide)
    assert cells.dtype == np.int32
    assert np.array_equal(cells.read_region((0, 0), 0, (83, 61))[..., 0], label[0])
    assert zg.open_slide(tmp_path / "raw").dimensions == whole.dimensions  # its only image
    with pytest.raises(UnsupportedFormatError, match="is a Plate, not a slide"):
        zg.open_slide(tmp_path / "plate")


@pytest.fixture(params=["v0.4", "v0.5"])
def real(request, shared_data):
    path = shared_data / "ome" / request.param
    if not path.is_dir():
        pytest.skip(f"no {path}")
    return path


def test_real_images_equal_zarr_python(real):
    slide = zg.open_slide(real)
    theirs = zarr.open_group(real, mode="r")
    assert slide.axes == ("t", "c", "z", "y", "x")
    assert slide.mpp == (0.5, 0.5)
    assert [c["label"] for c in slide.spec.channels] == ["DAPI", "GFP"]
    for index, level in enumerate(slide.levels):
        data = np.asarray(theirs[str(index)][...])
        assert np.array_equal(level[...], data)
        for z in range(data.shape[2]):
            got = slide.read_region(
                (0, 0), index, slide.level_dimensions[index], position={"z": z}, layout="NCHW"
            )
            assert np.array_equal(got, data[0, :, z])
    nuclei = slide.group["labels/nuclei"]
    assert isinstance(nuclei, zg.Slide)
    assert np.array_equal(nuclei.levels[0][...], theirs["labels/nuclei/0"][...])
    assert isinstance(slide.group["labels"], zg.Group)
