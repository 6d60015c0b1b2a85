"""Law: what is converted reads the same, by zarrgpu and by zarr-python, and is OME-Zarr 0.5.

Oracles: the source's own arrays as tests made them, zarr-python, imagecodecs, the official JSON
schema suite's validator as `zarrgpu` has it.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pytest
import zarr
from numpy.testing import assert_array_equal

import zarrgpu as zg
from tests.ngff_cases import axes_of, datasets_06, edge, system, wrap
from tests.synthetic_philips import PhilipsRecipe, make_philips
from tests.synthetic_slides import SlideRecipe, make_svs
from tests.test_nifti import SFORM, random_array, write
from zarrgpu.cli import main
from zarrgpu.convert import ConvertOptions, convert
from zarrgpu.convert import run as convert_run
from zarrgpu.convert.downsample import halve
from zarrgpu.errors import (
    ChunkDecodeError,
    MemoryBudgetError,
    RequestError,
    StoreError,
    UnsupportedCodecError,
    UnsupportedFormatError,
)
from zarrgpu.formats.ome import parse_multiscale
from zarrgpu.interop.nibabel import to_nibabel
from zarrgpu.nifti import nifti_header
from zarrgpu.validation import validate

SMALL = ConvertOptions(chunk_px=32, shard_px=96)


def slide_at(path: Path, **recipe: object) -> Path:
    path.write_bytes(make_svs(SlideRecipe(**recipe)))
    return path


def check_ome(path: Path) -> dict:
    """Attributes of the group, which must be valid."""
    assert validate(path) == ()
    return json.loads((path / "zarr.json").read_text())["attributes"]


def same_levels(source: zg.Slide, output: Path) -> None:
    """Every level of a slide in the output, as zarrgpu and zarr-python read it."""
    converted, group = zg.open_slide(output), zarr.open_group(output, mode="r")
    for level, array in enumerate(source.levels):
        wanted = array.read(device="cpu").transpose(2, 0, 1)
        assert_array_equal(converted.levels[level].read(device="cpu"), wanted)
        assert_array_equal(group[str(level)][...], wanted)


@pytest.mark.parametrize("codec", ["auto", "zstd", "blosc", "lz4", "gzip", "none"])
def test_a_slide_keeps_its_pixels_and_levels(tmp_path: Path, codec: str) -> None:
    path = slide_at(tmp_path / "a.svs", kind="jpeg-420")
    options = ConvertOptions(chunk_px=32, shard_px=96, codec=codec)
    assert convert(path, tmp_path / "a.zarr", options=options) == tmp_path / "a.zarr"
    source, converted = zg.open_slide(path), zg.open_slide(tmp_path / "a.zarr")
    assert converted.axes == ("c", "y", "x")
    assert converted.level_dimensions == source.level_dimensions
    assert converted.mpp == source.mpp
    assert converted.levels[0].chunks == (3, 32, 32)
    assert converted.levels[0].shards == (3, 96, 96)
    same_levels(source, tmp_path / "a.zarr")
    at = [(0, 0), (120, 60), (-9, 200)]
    assert_array_equal(
        converted.read_regions(at, 1, (70, 50), device="cpu"),
        source.read_regions(at, 1, (70, 50), device="cpu"),
    )


@pytest.mark.parametrize("codec", ["auto", "none"])
def test_chunks_have_the_channels_of_a_pixel_side_by_side(tmp_path: Path, codec: str) -> None:
    path = slide_at(tmp_path / "a.svs", kind="deflate", n_levels=1)
    options = ConvertOptions(chunk_px=32, shard_px=96, codec=codec, pyramid="keep")
    convert(path, tmp_path / "a.zarr", options=options)
    assert zg.open_slide(tmp_path / "a.zarr").levels[0].spec.axis_order == (1, 2, 0)


def test_metadata_are_valid_and_carried_over(tmp_path: Path) -> None:
    path = slide_at(tmp_path / "a.svs", kind="none", icc_profile=b"profile" * 20)
    convert(path, tmp_path / "a.zarr", options=SMALL)
    attributes = check_ome(tmp_path / "a.zarr")
    own, source = attributes["zarrgpu"], zg.open_slide(path)
    assert own["properties"] == dict(source.properties)
    assert own["vendor"] == "aperio"
    assert base64.b64decode(own["icc_profile"]) == b"profile" * 20
    image = attributes["ome"]["multiscales"][0]
    assert [axis.get("unit") for axis in image["axes"]] == [None, "micrometer", "micrometer"]
    scale, shift = image["datasets"][1]["coordinateTransformations"]
    down = source.level_downsamples[1]
    assert scale["scale"][1:] == pytest.approx([0.499 * down] * 2, rel=0.01)
    # the centre of a coarse pixel lies between those of the pixels that it covers
    assert shift["translation"][2] == pytest.approx(0.499 * (287 / 144 - 1) / 2)
    assert [channel["color"] for channel in attributes["ome"]["omero"]["channels"]] == [
        "FF0000", "00FF00", "0000FF",
    ]  # fmt: skip
    for name, picture in source.associated_images.items():
        written = zarr.open_array(tmp_path / "a.zarr" / own["associated_images"][name], mode="r")
        assert_array_equal(written[...], picture.read(device="cpu"))
    assert sorted(own["associated_images"]) == ["label", "macro", "thumbnail"]
    converted = zg.open_slide(tmp_path / "a.zarr")  # which knows them again
    assert _without_levels(converted.properties) == _without_levels(source.properties)
    assert converted.icc_profile == source.icc_profile
    for name, picture in source.associated_images.items():
        again = converted.associated_images[name].read(device="cpu")
        assert_array_equal(again, picture.read(device="cpu"))


def test_properties_of_levels_are_those_that_were_written(tmp_path: Path) -> None:
    path = slide_at(tmp_path / "a.svs", kind="none", n_levels=1)
    convert(path, tmp_path / "a.zarr", options=SMALL)
    source, converted = zg.open_slide(path), zg.open_slide(tmp_path / "a.zarr")
    assert converted.level_count == 5
    assert converted.properties["openslide.level-count"] == "5"
    for level, (width, height) in enumerate(converted.level_dimensions):
        of_level = f"openslide.level[{level}]."
        assert converted.properties[of_level + "width"] == str(width)
        assert converted.properties[of_level + "height"] == str(height)
        tile = min(32, width)
        assert converted.properties[of_level + "tile-width"] == str(tile)
        downsample = float(converted.properties[of_level + "downsample"])
        assert downsample == converted.level_downsamples[level] == 2**level
    assert _without_levels(converted.properties) == _without_levels(source.properties)


def _without_levels(properties: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in properties.items() if not k.startswith("openslide.level")}


def test_downsamples_that_a_slide_states_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.tiff").write_bytes(make_philips(PhilipsRecipe(height=701, width=523)))
    source = zg.open_slide(tmp_path / "a.tiff")
    convert(tmp_path / "a.tiff", tmp_path / "a.zarr", options=SMALL)
    check_ome(tmp_path / "a.zarr")
    converted = zg.open_slide(tmp_path / "a.zarr")
    assert converted.level_dimensions == source.level_dimensions
    for level, downsample in enumerate(source.level_downsamples):
        scale, shift = converted.multiscale.scale(level), converted.multiscale.translation(level)
        assert scale == pytest.approx((1, *(size * downsample for size in source.mpp[::-1])))
        wanted = (0, *(size * (downsample - 1) / 2 for size in source.mpp[::-1]))
        assert shift == pytest.approx(wanted)


def test_what_others_write_as_our_attribute_is_left_out(tmp_path: Path) -> None:
    path = slide_at(tmp_path / "a.svs", kind="none", n_levels=1)
    convert(path, tmp_path / "a.zarr", options=SMALL)
    group = zarr.open_group(tmp_path / "a.zarr")
    for value in (
        7,
        {"properties": [1], "icc_profile": 3, "associated_images": "x"},
        {"properties": {"a": 1}, "icc_profile": "?", "associated_images": {"label": "..", "a": 1}},
        {"associated_images": {"label": "nowhere", "macro": "0/../0", "thumbnail": "associated"}},
    ):
        group.attrs["zarrgpu"] = value
        slide = zg.open_slide(tmp_path / "a.zarr")
        assert (dict(slide.properties), slide.icc_profile) == ({}, None)
        assert dict(slide.associated_images) == {}


def test_labels_can_stay_behind(tmp_path: Path) -> None:
    path = slide_at(tmp_path / "a.svs", kind="none")
    options = ConvertOptions(chunk_px=32, shard_px=96, associated=False)
    convert(path, tmp_path / "a.zarr", options=options)
    assert not (tmp_path / "a.zarr" / "associated").exists()
    assert check_ome(tmp_path / "a.zarr")["zarrgpu"]["associated_images"] == {}


def test_levels_are_made_where_there_are_none(tmp_path: Path) -> None:
    path = slide_at(tmp_path / "a.svs", kind="lzw", n_levels=1)
    convert(path, tmp_path / "a.zarr", options=SMALL)
    source, converted = zg.open_slide(path), zg.open_slide(tmp_path / "a.zarr")
    same_levels(source, tmp_path / "a.zarr")
    assert converted.level_dimensions == ((287, 331), (144, 166), (72, 83), (36, 42), (18, 21))
    image = check_ome(tmp_path / "a.zarr")["ome"]["multiscales"][0]
    transforms = image["datasets"][3]["coordinateTransformations"]
    assert transforms[0]["scale"] == pytest.approx([1, 0.499 * 8, 0.499 * 8])
    assert transforms[1]["translation"] == pytest.approx([0, 0.499 * 3.5, 0.499 * 3.5])
    for fine, coarse in zip(converted.levels, converted.levels[1:], strict=False):
        pixels = fine.read(device="cpu").astype(int)
        odd = [(0, 0), (0, -pixels.shape[1] % 2), (0, -pixels.shape[2] % 2)]
        padded = np.pad(pixels, odd, mode="edge")
        sums = sum(padded[:, y::2, x::2] for y in (0, 1) for x in (0, 1))
        assert_array_equal(coarse.read(device="cpu"), (sums + 2) // 4)


@pytest.mark.parametrize("kind", ["ome", "nifti"])
def test_labels_are_never_averaged(tmp_path: Path, kind: str) -> None:
    data = random_array((90, 70, 40), "u2")
    if kind == "nifti":
        image = nibabel.Nifti1Image(data, SFORM)
        image.header.set_intent("label")
        image.to_filename(tmp_path / "a.nii")
        path = tmp_path / "a.nii"
    else:
        path = tmp_path / "l.zarr"
        group = zarr.open_group(path, mode="w")
        group.create_array("0", data=data.transpose(), chunks=(20, 20, 20))
        scale = {"type": "scale", "scale": [1.0, 1.0, 1.0]}
        level = {"path": "0", "coordinateTransformations": [scale]}
        axes = [{"name": name, "type": "space"} for name in "zyx"]
        colour = {"label-value": 1, "rgba": [0, 0, 255, 255]}
        group.attrs["ome"] = {
            "version": "0.5",
            "multiscales": [{"axes": axes, "datasets": [level]}],
            "image-label": {"colors": [colour]},
        }
    convert(path, tmp_path / "b.zarr", options=ConvertOptions(chunk_px=24, shard_px=48))
    attributes = check_ome(tmp_path / "b.zarr")
    assert ("image-label" in attributes["ome"]) == (kind == "ome")
    assert attributes["ome"]["multiscales"][0]["type"] == "nearest"
    converted = zg.open_slide(tmp_path / "b.zarr")
    assert [level.shape for level in converted.levels] == [(40, 70, 90), (20, 35, 45), (20, 18, 23)]
    for array, step in zip(converted.levels, ((1, 1), (2, 2), (2, 4)), strict=True):
        wanted = data.transpose()[:: step[0], :: step[1], :: step[1]]
        assert_array_equal(array.read(device="cpu"), wanted)
    if kind == "nifti":  # the first element of a level is that of the one before
        affines = [nifti_header(converted, level).affine for level in range(3)]
        for affine in affines[1:]:
            np.testing.assert_allclose(affine[:, 3], affines[0][:, 3])


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i4", "u8", "i8", "f4", "f8", "c8", "?"])
def test_halving_is_the_mean_rounded_half_up(dtype: str) -> None:
    pixels = np.ones((3, 5, 6), "?") if dtype == "?" else random_array((3, 5, 6), dtype)
    got = halve(pixels, "cyx", "yx")
    assert got.dtype == pixels.dtype
    assert got.shape == (3, 3, 3)
    for c, y, x in np.ndindex(got.shape):
        block = pixels[c, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        block = np.concatenate([block, block])[:2]
        if np.dtype(dtype).kind in "iub":
            values = [int(value) for value in block.ravel()]
            assert int(got[c, y, x]) == (2 * sum(values) + len(values)) // (2 * len(values))
        else:
            wide = block.astype(np.result_type(dtype, "f8"))
            assert got[c, y, x] == pytest.approx(wide.mean(), rel=1e-6)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_a_volume_of_nifti_becomes_bricks_and_keeps_its_space(tmp_path: Path, dtype: str) -> None:
    data = random_array((50, 40, 36, 2), dtype)
    path = write(tmp_path / "a.nii.gz", data, order=">")
    options = ConvertOptions(chunk_px=16, shard_px=32)
    convert(path, tmp_path / "a.nii.zarr", options=options)
    converted = zg.open_slide(tmp_path / "a.nii.zarr")
    assert converted.axes == ("t", "z", "y", "x")
    assert converted.levels[0].chunks == (1, 16, 16, 16)
    assert converted.levels[0].shards == (1, 32, 32, 32)
    assert [level.shape[1:] for level in converted.levels] == [
        (36, 40, 50),
        (18, 20, 25),
        (9, 10, 13),
    ]
    assert_array_equal(converted.levels[0].read(device="cpu"), data.transpose())
    assert_array_equal(
        zarr.open_group(tmp_path / "a.nii.zarr", mode="r")["0"][...], data.transpose()
    )
    check_ome(tmp_path / "a.nii.zarr")
    expected, image = nibabel.load(path), to_nibabel(converted)
    assert_array_equal(image.dataobj.get_unscaled(), data)
    assert_array_equal(image.affine, expected.affine)
    coarse = to_nibabel(converted, level=1)
    np.testing.assert_allclose(coarse.affine @ [0, 0, 0, 1], SFORM @ [0.5, 0.5, 0.5, 1], atol=1e-5)


def test_colours_of_nifti_become_channels(tmp_path: Path) -> None:
    colour = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    data = random_array((20, 10, 4), colour)
    convert(write(tmp_path / "a.nii", data), tmp_path / "a.zarr")
    converted = zg.open_slide(tmp_path / "a.zarr")
    assert converted.axes == ("c", "z", "y", "x")
    wanted = data.view("u1").reshape(20, 10, 4, 3).transpose(3, 2, 1, 0)
    assert_array_equal(converted.levels[0].read(device="cpu"), wanted)


def test_a_plain_array_needs_names_for_its_axes(tmp_path: Path) -> None:
    data = random_array((2, 3, 60, 70), "u2")
    zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(1, 1, 20, 20), attributes={"a": 1})
    with pytest.raises(UnsupportedFormatError, match=r"axes \(\?, \?, \?, \?\).*axes='czyx'"):
        convert(tmp_path / "a.zarr", tmp_path / "b.zarr")
    options = ConvertOptions(chunk_px=32, shard_px=64, axes="ctyx")
    convert(tmp_path / "a.zarr", tmp_path / "b.zarr", options=options)
    converted = zg.open_slide(tmp_path / "b.zarr")
    assert converted.axes == ("t", "c", "y", "x")
    assert_array_equal(converted.levels[0].read(device="cpu"), data.transpose(1, 0, 2, 3))
    assert check_ome(tmp_path / "b.zarr")["zarrgpu"]["attributes"] == {"a": 1}


def test_an_ome_zarr_keeps_axes_units_and_transformations(tmp_path: Path) -> None:
    first = convert(slide_at(tmp_path / "a.svs", kind="none"), tmp_path / "a.zarr", options=SMALL)
    second = convert(first, tmp_path / "b.zarr", options=ConvertOptions(chunk_px=64, codec="lz4"))
    one, two = check_ome(first)["ome"], check_ome(second)["ome"]
    assert two["multiscales"][0]["axes"] == one["multiscales"][0]["axes"]
    assert two["multiscales"][0]["datasets"] == one["multiscales"][0]["datasets"]
    assert two["omero"] == one["omero"]
    for a, b in zip(zg.open_slide(first).levels, zg.open_slide(second).levels, strict=True):
        assert_array_equal(a.read(device="cpu"), b.read(device="cpu"))


@pytest.mark.parametrize(("dtype", "most"), [("u2", 65535.0), ("f4", 1.0)])
def test_what_an_ome_zarr_says_of_itself_is_kept_and_completed(
    tmp_path: Path, dtype: str, most: float
) -> None:
    full = {"label": "a", "color": "0a0B0C", "active": False, "coefficient": 2,
            "window": {"start": 1, "end": 2, "min": 0, "max": 3}}  # fmt: skip
    channels = [full, {"label": 5, "color": "#FF8000FF"}, {"window": {"start": -1, "end": 4}}, 7]
    rdefs = {"defaultZ": 0, "model": "color"}
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * 3}]}]
    image = {"axes": axes_of("cyx"), "datasets": datasets, "version": "0.4", "name": "brain",
             "type": "gaussian", "metadata": {"sigma": 2}}  # fmt: skip
    omero = {"channels": channels, "rdefs": rdefs, "id": 1}
    group = zarr.create_group(
        tmp_path / "a", attributes={"multiscales": [image], "omero": omero}, zarr_format=2
    )
    group.create_array("0", data=np.zeros((4, 40, 40), dtype))
    ome = check_ome(convert(tmp_path / "a", tmp_path / "b"))["ome"]
    kept = ome["multiscales"][0]
    assert (kept["name"], kept["type"], kept["metadata"]) == ("brain", "gaussian", {"sigma": 2})
    assert ome["omero"]["rdefs"] == rdefs
    window = {"start": 0.0, "end": most, "min": 0.0, "max": most}
    assert ome["omero"]["channels"] == [
        full | {"color": "0A0B0C"},
        {"color": "FF8000", "window": window},
        {"color": "FFFFFF", "window": window | {"start": -1.0, "end": 4.0}},
        {"color": "FFFFFF", "window": window},
    ]
    assert validate(tmp_path / "b", strict=True) == ()
    options = ConvertOptions(chunk_px=20, pyramid="generate")
    made = check_ome(convert(tmp_path / "a", tmp_path / "c", options=options))["ome"]
    assert (made["multiscales"][0]["name"], made["multiscales"][0]["type"]) == ("brain", "mean")


def test_levels_of_another_type_are_not_cast(tmp_path: Path) -> None:
    steps = [[{"type": "scale", "scale": [n, n]}] for n in (1.0, 2.0)]
    datasets = [{"path": str(k), "coordinateTransformations": step} for k, step in enumerate(steps)]
    document = wrap("0.5", multiscales=[{"axes": axes_of("yx"), "datasets": datasets}])
    group = zarr.create_group(tmp_path / "a", attributes=document)
    group.create_array("0", data=np.full((40, 40), 7, "u1"))
    group.create_array("1", data=np.full((20, 20), 700, "u2"))
    with pytest.raises(UnsupportedFormatError, match="level 1 is of uint16, and level 0 of uint8"):
        convert(tmp_path / "a", tmp_path / "b")
    options = ConvertOptions(chunk_px=20, pyramid="generate")
    made = zarr.open_group(convert(tmp_path / "a", tmp_path / "b", options=options))["1"]
    assert (made[:] == 7).all()


def test_planes_of_an_ome_tiff_keep_their_distance(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    planes = np.random.default_rng(0).integers(0, 99, (5, 40, 50), "u1")
    sizes = {
        f"PhysicalSize{axis}": size for axis, size in zip("XYZ", (500, 250, 2000), strict=True)
    }
    units = {f"PhysicalSize{axis}Unit": "nm" for axis in "XYZ"}
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, metadata={"axes": "ZYX", **sizes, **units})
    assert zg.open_slide(tmp_path / "a.ome.tif").properties["zarrgpu.mpp-z"] == "2"
    made = zg.open(convert(tmp_path / "a.ome.tif", tmp_path / "b"))
    scale = dict(zip(made.axes, made.multiscale.scale(0), strict=True))
    assert (scale["z"], scale["y"], scale["x"]) == (2.0, 0.25, 0.5)
    assert made.units[made.axes.index("z")] == "micrometer"
    assert_array_equal(np.squeeze(made.levels[0].read(device="cpu")), planes)


def labelled(path: Path, levels: int, label_levels: int, sizes: list[int]) -> None:
    """A volume with labels for each of its planes, of as many levels or fewer."""

    def image(axes: str, count: int) -> dict:
        scales = [[2.0**k if axis in "yx" else 1.0 for axis in axes] for k in range(count)]
        datasets = [{"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": s}]}
                    for k, s in enumerate(scales)]  # fmt: skip
        return {"axes": axes_of(axes), "datasets": datasets}

    random = np.random.default_rng(3)
    group = zarr.create_group(
        path, attributes=wrap("0.5", multiscales=[image("czyx", levels)]), overwrite=True
    )
    for k, size in enumerate(sizes[:levels]):
        group.create_array(str(k), data=random.integers(0, 9, (2, 3, size, size), "u2"))
    folder = group.create_group("labels", attributes=wrap("0.5", labels=["a/cells"]))
    colors = {"colors": [{"label-value": 1, "rgba": [9, 8, 7, 255]}]}
    cells = folder.create_group("a").create_group("cells")
    own = {"multiscales": [image("zyx", label_levels)], "image-label": colors}
    cells.attrs.put(wrap("0.5", **own))
    for k, size in enumerate(sizes[:label_levels]):
        cells.create_array(str(k), data=random.integers(0, 9, (3, size, size), "u4"))


@pytest.mark.parametrize(
    ("levels", "own", "sizes"),
    [
        (1, 1, [100]),  # both are made
        (3, 3, [100, 50, 25]),  # both are kept
        (3, 1, [101, 50, 25]),  # those of the labels are made, to the sizes of the image
        (1, 2, [100, 50]),
    ],
)
def test_labels_are_written_below_their_image(
    tmp_path: Path, levels: int, own: int, sizes: list[int]
) -> None:
    labelled(tmp_path / "a", levels, own, sizes)
    options = ConvertOptions(chunk_px=25, shard_px=50)
    ome = check_ome(convert(tmp_path / "a", tmp_path / "b", options=options))["ome"]
    assert "image-label" not in ome
    source, made = zg.open(tmp_path / "a"), zg.open(tmp_path / "b")
    assert list(made.labels) == ["a/cells"]
    cells = made.labels["a/cells"]
    assert cells.image_label.colors == {1: (9, 8, 7, 255)}
    assert cells.level_dimensions == made.level_dimensions
    finest = source.labels["a/cells"].levels[0].read(device="cpu")
    for level, array in enumerate(cells.levels):
        pixels = array.read(device="cpu")
        if levels == own > 1:
            assert_array_equal(pixels, source.labels["a/cells"].levels[level].read(device="cpu"))
        else:
            n = pixels.shape[-1]
            assert_array_equal(pixels, finest[:, :: 2**level, :: 2**level][:, :n, :n])
        assert pixels.dtype == np.uint32
        masks = made.read_labels("a/cells", [(4, 6)], level, (5, 5), position={"z": 2})[0]
        at = [int(v / made.level_downsamples[level] + 0.5) for v in (6, 4)]
        assert_array_equal(masks, pixels[2, at[0] : at[0] + 5, at[1] : at[1] + 5])


def test_labels_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    labelled(tmp_path / "a", 1, 1, [40])
    array = zarr.open_group(tmp_path / "a/labels/a/cells")
    array.create_array("0", data=np.zeros((3, 40, 40), "f4"), overwrite=True)
    with pytest.raises(UnsupportedFormatError, match=r"has pixels of float32.*--no-labels"):
        convert(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "a/labels/a/cells")
    with pytest.raises(UnsupportedFormatError, match=r"labels/a/cells.* cannot be.*--no-labels"):
        convert(tmp_path / "a", tmp_path / "b")
    assert main(["convert", str(tmp_path / "a"), str(tmp_path / "b"), "--no-labels"]) == 0
    assert not (tmp_path / "b" / "labels").exists()


@pytest.mark.parametrize("sign", [1, -1])
def test_pixels_of_an_array_system_keep_the_size_of_the_physical_one(
    tmp_path: Path, sign: int
) -> None:
    to_world = [[4.0, 0, 0, 1], [0, 0.5 * sign, 0, 2], [0, 0, 0.25, 3]]
    document = {
        "coordinateSystems": [
            system("pixels", [{"name": f"dim_{i}", "type": "array"} for i in range(3)]),
            system("world", axes_of("zyx")),
        ],
        "datasets": datasets_06([[1.0, 1.0, 1.0], [1.0, 2.0, 2.0]], "pixels"),
        "coordinateTransformations": [edge("affine", "pixels", "world", affine=to_world)],
    }
    for index, step in enumerate((0.0, 0.5)):
        transformation = document["datasets"][index]["coordinateTransformations"][0]
        scale = {"type": "scale", "scale": transformation.pop("scale")}
        shift = {"type": "translation", "translation": [0.0, step, step]}
        transformation |= {"type": "sequence", "transformations": [scale, shift]}
    group = zarr.create_group(tmp_path / "a", attributes=wrap("0.6", multiscales=[document]))
    for index, size in enumerate((64, 32)):
        group.create_array(f"s{index}", data=np.zeros((2, size, size), "u1"))
    converted = zg.open(convert(tmp_path / "a", tmp_path / "b.zarr"))
    assert converted.mpp == zg.open(tmp_path / "a").mpp == (0.25, 0.5)
    assert converted.multiscale.scale(1) == (4.0, 1.0, 0.5)
    # an axis that runs backwards has pixels of a size; levels lie as they did to level 0
    assert converted.multiscale.translation(0) == (1.0, 2.0 if sign > 0 else 0.0, 3.0)
    assert converted.multiscale.translation(1) == (1.0, 2.25 if sign > 0 else 0.25, 3.125)


class JpegForZarrPython(zarr.abc.codec.ArrayBytesCodec):
    """imagecodecs' JPEG for zarr-python, as its own ``imagecodecs.zarr`` registers it."""

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict) -> JpegForZarrPython:
        return cls()

    def to_dict(self) -> dict:
        return {"name": "imagecodecs_jpeg", "configuration": {}}

    def compute_encoded_size(self, *args: object) -> int:
        raise NotImplementedError

    async def _decode_single(self, chunk_bytes: object, chunk_spec: object) -> object:
        image = imagecodecs.jpeg8_decode(chunk_bytes.to_bytes())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(image.reshape(chunk_spec.shape))


@pytest.mark.parametrize("kind", ["jpeg-rgb", "jpeg-444", "jpeg-420"])
def test_jpeg_tiles_are_copied_byte_for_byte(tmp_path: Path, kind: str) -> None:
    path = slide_at(tmp_path / "a.svs", kind=kind)
    options = ConvertOptions(codec="jpeg", copy_tiles=True, shard_px=130)
    convert(path, tmp_path / "a.zarr", options=options)
    check_ome(tmp_path / "a.zarr")
    source, converted = zg.open_slide(path), zg.open_slide(tmp_path / "a.zarr")
    assert converted.levels[0].chunks == (3, 64, 64)
    assert converted.levels[0].shards == (3, 128, 128)
    zarr.registry.register_codec("imagecodecs_jpeg", JpegForZarrPython)
    same_levels(source, tmp_path / "a.zarr")
    spec = source.levels[0].spec
    data = path.read_bytes()
    shard = (tmp_path / "a.zarr" / "0" / "c" / "0" / "0" / "0").read_bytes()
    for at, nbytes in zip(spec.location.offsets[:2], spec.location.nbytes[:2], strict=True):
        tile = data[at : at + nbytes]
        assert tile[tile.index(b"\xff\xda") :] in shard  # all that is entropy-coded


def test_missing_tiles_stay_missing(tmp_path: Path) -> None:
    path = slide_at(tmp_path / "a.svs", kind="jpeg-rgb", n_levels=1, missing={0: (0, 3)})
    options = ConvertOptions(codec="jpeg", copy_tiles=True, shard_px=64)
    convert(path, tmp_path / "a.zarr", options=options)
    assert not (tmp_path / "a.zarr" / "0" / "c" / "0" / "0" / "0").exists()
    zarr.registry.register_codec("imagecodecs_jpeg", JpegForZarrPython)
    same_levels(zg.open_slide(path), tmp_path / "a.zarr")


def test_what_missing_tiles_are_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = slide_at(tmp_path / "a.svs", kind="jpeg-rgb", n_levels=1, missing={0: (0, 3)})
    source = zg.open_slide(path)
    array = source.levels[0]
    array.source.spec = replace(array.source.spec, fill_value=np.uint8(255))
    monkeypatch.setattr(convert_run, "open_node", lambda *_, **__: source)
    zarr.registry.register_codec("imagecodecs_jpeg", JpegForZarrPython)
    copied = ConvertOptions(codec="jpeg", copy_tiles=True)
    for name, options in (("a", copied), ("b", replace(SMALL, pyramid="keep"))):
        convert(path, tmp_path / f"{name}.zarr", options=options)
        converted = zg.open_slide(tmp_path / f"{name}.zarr")
        assert converted.levels[0].fill_value == 255
        assert converted.read_region((0, 0), 0, (1, 1), device="cpu").tolist() == [[[255] * 3]]
        same_levels(source, tmp_path / f"{name}.zarr")


@pytest.mark.parametrize("kind", ["none", "deflate", "j2k-rgb"])
def test_tiles_that_are_no_jpeg_are_not_copied(tmp_path: Path, kind: str) -> None:
    path = slide_at(tmp_path / "a.svs", kind=kind)
    with pytest.raises(UnsupportedCodecError, match="tiles of level 0 cannot be copied"):
        convert(path, tmp_path / "a.zarr", options=ConvertOptions(codec="jpeg", copy_tiles=True))
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_tile_is_named_and_nothing_is_called_finished(tmp_path: Path) -> None:
    path = slide_at(tmp_path / "a.svs", kind="jpeg-rgb", n_levels=1)
    location = zg.open_slide(path).levels[0].spec.location
    data = bytearray(path.read_bytes())
    data[int(location.offsets[7])] ^= 0xFF
    path.write_bytes(data)
    options = ConvertOptions(codec="jpeg", copy_tiles=True, shard_px=64)
    with pytest.raises(ChunkDecodeError, match=r"tile 1,2,0.*a\.svs"):
        convert(path, tmp_path / "a.zarr", options=options)
    with pytest.raises(ChunkDecodeError, match=r"a\.svs"):
        convert(path, tmp_path / "b.zarr", options=SMALL)
    assert not (tmp_path / "a.zarr").exists()
    assert not (tmp_path / "b.zarr").exists()


def files_of(folder: Path) -> dict[str, bytes]:
    """Name and content of all files."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class StoppedError(Exception):
    """Stands for whatever ends a process."""


def test_an_interrupted_run_goes_on_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = slide_at(tmp_path / "a.svs", kind="none")
    options = ConvertOptions(chunk_px=32, shard_px=96, num_threads=1)
    convert(path, tmp_path / "whole.zarr", options=options)
    read, boxes, stops = convert_run.Source.read, [], [3, 10, 13, None]

    def counted(self: object, level: int, box: object, given: object) -> object:
        if len(boxes) == stops[0]:
            raise StoppedError
        boxes.append((level, box))
        return read(self, level, box, given)

    monkeypatch.setattr(convert_run.Source, "read", counted)
    while stops[0] is not None:
        with pytest.raises(StoppedError):
            convert(path, tmp_path / "a.zarr", options=options)
        assert not (tmp_path / "a.zarr").exists()
        stops.pop(0)
    convert(path, tmp_path / "a.zarr", options=options)
    assert len(boxes) == len(set(boxes)) == 4 * 3 + 2 * 2 + 1
    assert files_of(tmp_path / "whole.zarr") == files_of(tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr.partial").exists()


def test_files_that_were_cut_off_are_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = slide_at(tmp_path / "a.svs", kind="none")
    options = ConvertOptions(chunk_px=32, shard_px=96, num_threads=1)
    convert(path, tmp_path / "whole.zarr", options=options)

    for place in ("mark", "finish"):  # in the first shard, and with all but the name

        def stop(partial: convert_run.PartialOutput, *_: object, place: str = place) -> None:
            if place == "finish":
                partial.close()
            raise StoppedError

        monkeypatch.setattr(convert_run.PartialOutput, place, stop)
        with pytest.raises(StoppedError):
            convert(path, tmp_path / "a.zarr", options=options)
        monkeypatch.undo()
        partial = tmp_path / "a.zarr.partial"
        done = (partial / "convert.done").read_text().split()
        for index, coords in enumerate(np.ndindex(1, 4, 3)):
            if f"0/{index}" not in done:  # at the edge as well
                shard = partial.joinpath("0/c", *map(str, coords))
                shard.parent.mkdir(parents=True, exist_ok=True)
                shard.write_bytes(b"\1" * 50)
        for document in partial.rglob("zarr.json"):
            if "label" not in document.parts:
                document.write_bytes(document.read_bytes()[:40])
    convert(path, tmp_path / "a.zarr", options=options)
    assert files_of(tmp_path / "whole.zarr") == files_of(tmp_path / "a.zarr")


def test_a_changed_source_or_other_options_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = slide_at(tmp_path / "a.svs", kind="none")

    def stop(*_: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(convert_run, "_write_extras", stop)
        with pytest.raises(StoppedError):
            convert(path, tmp_path / "a.zarr", options=SMALL)
    with pytest.raises(StoreError, match="the source or the options"):
        convert(path, tmp_path / "a.zarr", options=ConvertOptions(chunk_px=64))
    os.utime(path, ns=(0, 0))
    with pytest.raises(StoreError, match="the source or the options"):
        convert(path, tmp_path / "a.zarr", options=SMALL)
    convert(
        path, tmp_path / "a.zarr", options=ConvertOptions(chunk_px=32, shard_px=96, overwrite=True)
    )
    same_levels(zg.open_slide(path), tmp_path / "a.zarr")


def test_a_source_that_changes_meanwhile_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = slide_at(tmp_path / "a.svs", kind="none")
    monkeypatch.setattr(convert_run, "_write_extras", lambda *_: os.utime(path, ns=(0, 0)))
    with pytest.raises(StoreError, match="changed while"):
        convert(path, tmp_path / "a.zarr", options=SMALL)
    assert not (tmp_path / "a.zarr").exists()


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = slide_at(tmp_path / "a.svs", kind="none", n_levels=1)
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "mine").write_text("x")
    with pytest.raises(StoreError, match="exists; pass overwrite"):
        convert(path, tmp_path / "a.zarr", options=SMALL)
    assert (tmp_path / "a.zarr" / "mine").exists()
    convert(path, tmp_path / "a.zarr", options=ConvertOptions(chunk_px=32, overwrite=True))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.svs", "a.zarr"]
    assert not (tmp_path / "a.zarr" / "mine").exists()
    for started in ([], ["convert.json.new"]):  # runs that ended before they wrote what they do
        (tmp_path / "b.zarr.partial").mkdir()
        for name in started:
            (tmp_path / "b.zarr.partial" / name).write_text("{")
        convert(path, tmp_path / "b.zarr", options=replace(SMALL, overwrite=bool(started)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.svs", "a.zarr", "b.zarr"]
    assert not list((tmp_path / "b.zarr").glob("convert.*"))
    shutil.rmtree(tmp_path / "b.zarr")
    (tmp_path / "b.zarr.partial").mkdir()
    (tmp_path / "b.zarr.partial" / "mine").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(StoreError, match=r"b\.zarr\.partial"):
            convert(path, tmp_path / "b.zarr", options=ConvertOptions(overwrite=overwrite))


@pytest.mark.parametrize("replaces", [False, True])
def test_a_run_that_ends_with_its_last_step_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, replaces: bool
) -> None:
    path = slide_at(tmp_path / "a.svs", kind="none", n_levels=1)
    if replaces:
        convert(path, tmp_path / "a.zarr", options=SMALL)
    options = replace(SMALL, codec="gzip", overwrite=replaces)
    rename = Path.rename

    def ends(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", ends)
    with pytest.raises(KeyboardInterrupt):
        convert(path, tmp_path / "a.zarr", options=options)
    monkeypatch.undo()
    assert not (tmp_path / "a.zarr").exists()
    monkeypatch.setattr(convert_run.Source, "read", None)  # nothing is read again
    convert(path, tmp_path / "a.zarr", options=options)
    monkeypatch.undo()
    assert not list((tmp_path / "a.zarr").glob("convert.*"))
    assert "gzip" in zg.open_slide(tmp_path / "a.zarr").levels[0].codecs
    same_levels(zg.open_slide(path), tmp_path / "a.zarr")


@pytest.mark.slow
def test_a_killed_process_is_taken_up_again(tmp_path: Path) -> None:
    path = slide_at(tmp_path / "a.svs", kind="none", height=1500, width=1500, n_levels=2)
    code = (
        "import sys, time\nfrom zarrgpu.convert import run, convert, ConvertOptions\n"
        "read = run.Source.read\n"
        "def slow(*args):\n    time.sleep(0.05)\n    return read(*args)\n"
        "run.Source.read = slow\n"
        "convert(sys.argv[1], sys.argv[2], options=ConvertOptions(chunk_px=64, shard_px=128))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, path, tmp_path / "a.zarr"])
    log = tmp_path / "a.zarr.partial" / "convert.done"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") > 20):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    with pytest.raises(StoreError, match="another process"):
        convert(path, tmp_path / "a.zarr", options=ConvertOptions(chunk_px=64, shard_px=128))
    process.send_signal(signal.SIGKILL)
    process.wait()
    log.write_text(log.read_text() + "0/1")  # a line that was cut off
    assert not (tmp_path / "a.zarr").exists()
    convert(path, tmp_path / "a.zarr", options=ConvertOptions(chunk_px=64, shard_px=128))
    same_levels(zg.open_slide(path), tmp_path / "a.zarr")


def test_memory_is_bounded(tmp_path: Path) -> None:
    path = slide_at(tmp_path / "a.svs", kind="none", n_levels=1)
    options = ConvertOptions(chunk_px=64, shard_px=256, memory_budget_bytes=10_000)
    with pytest.raises(MemoryBudgetError, match="smaller shards"):
        convert(path, tmp_path / "a.zarr", options=options)
    # a gzip stream is one chunk
    nibabel.Nifti1Image(np.zeros((64, 64, 64), "u1"), None).to_filename(tmp_path / "a.nii.gz")
    options = ConvertOptions(chunk_px=16, shard_px=16, memory_budget_bytes=200_000)
    with pytest.raises(MemoryBudgetError, match=r"of the source 262144, .* \(--memory\)"):
        convert(tmp_path / "a.nii.gz", tmp_path / "a.zarr", options=options)
    assert not (tmp_path / "a.zarr.partial").exists()


@pytest.mark.slow
def test_memory_held_is_that_of_shards_and_not_of_the_image(tmp_path: Path) -> None:
    data = np.arange(7000, dtype="u2")[:, None] * np.arange(7000, dtype="u2")
    zarr.create_array(
        tmp_path / "a.zarr", data=data, chunks=(500, 500), dimension_names=["y", "x"],
        compressors=None,
    )  # fmt: skip
    code = (
        "import sys, resource\nimport zarr\nfrom zarrgpu.convert import convert, ConvertOptions\n"
        "from zarrgpu.convert import run\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "options = ConvertOptions(chunk_px=256, shard_px=512, codec='none', "
        "memory_budget_bytes=24 << 20)\n"
        "convert(sys.argv[1], sys.argv[2], options=options)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", code, tmp_path / "a.zarr", tmp_path / "b.zarr"]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) << 10
    assert grown < data.nbytes * 0.6


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    path = slide_at(tmp_path / "a.svs", kind="none", n_levels=1)
    with pytest.raises(StoreError, match="cannot be written"):
        convert(path, Path(__file__) / "a.zarr", options=SMALL)
    convert(path, tmp_path / "a.zarr", options=SMALL)
    with pytest.raises(RequestError, match="lies within the source"):
        convert(tmp_path / "a.zarr", tmp_path / "a.zarr" / "b.zarr", options=SMALL)


def test_an_image_can_take_its_own_place(tmp_path: Path) -> None:
    path = slide_at(tmp_path / "a.svs", kind="none")
    convert(path, tmp_path / "a.zarr", options=SMALL)
    again = ConvertOptions(chunk_px=64, codec="lz4", overwrite=True)
    convert(tmp_path / "a.zarr", tmp_path / "a.zarr", options=again)
    assert zg.open_slide(tmp_path / "a.zarr").levels[0].chunks == (3, 64, 64)
    same_levels(zg.open_slide(path), tmp_path / "a.zarr")


def test_its_own_place_may_be_named_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(slide_at(tmp_path / "a.svs", kind="none"), tmp_path / "a.zarr", options=SMALL)
    monkeypatch.chdir(tmp_path)
    convert("a.zarr", "a.zarr", options=ConvertOptions(chunk_px=64, overwrite=True))
    assert zg.open_slide("a.zarr").levels[0].chunks == (3, 64, 64)
    with pytest.raises(RequestError, match="lies within the source"):
        convert("a.zarr", "a.zarr/b.zarr", options=SMALL)


@pytest.mark.parametrize("size", [np.nan, np.inf, 0.0])
def test_voxel_sizes_that_are_none_are_not_written(tmp_path: Path, size: float) -> None:
    image = nibabel.Nifti1Image(np.arange(120, dtype="i2").reshape(4, 5, 6), np.eye(4))
    data = bytearray(image.to_bytes())
    data[80:84] = np.float32(size).tobytes()  # pixdim[1]
    (tmp_path / "a.nii").write_bytes(data)
    convert(tmp_path / "a.nii", tmp_path / "a.zarr", options=SMALL)
    check_ome(tmp_path / "a.zarr")
    assert zg.open(tmp_path / "a.zarr").multiscale.scale(0) == (1.0, 1.0, 1.0)


def test_what_is_no_image(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "empty.zarr", shape=(0, 4), dtype="u1", dimension_names=["y", "x"])
    with pytest.raises(UnsupportedFormatError, match="has no elements"):
        convert(tmp_path / "empty.zarr", tmp_path / "out.zarr")
    zarr.open_group(tmp_path / "g.zarr", mode="w").create_array("a", data=np.zeros(3))
    with pytest.raises(UnsupportedFormatError, match="is a group, not an image"):
        convert(tmp_path / "g.zarr", tmp_path / "o.zarr")
    zarr.create_array(
        tmp_path / "d.zarr", data=np.zeros((3, 3), "M8[s]"), dimension_names=["y", "x"]
    )
    with pytest.raises(UnsupportedFormatError, match="datetime64"):
        convert(tmp_path / "d.zarr", tmp_path / "o.zarr")
    with pytest.raises(UnsupportedFormatError, match="local folders"):
        convert(tmp_path / "g.zarr", "s3://bucket/o.zarr")


@pytest.mark.parametrize(
    "bad",
    [{"codec": "webp"}, {"codec": "jpeg"}, {"copy_tiles": True}, {"chunk_px": 0}, {"pyramid": "x"},
     {"codec": "jpeg", "copy_tiles": True, "chunk_px": 5}],
)  # fmt: skip
def test_options_that_cannot_be(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"must be|go together|those of the source"):
        ConvertOptions(**bad)


def test_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    path = slide_at(tmp_path / "a.svs", kind="jpeg-rgb")
    output = tmp_path / "a.zarr"
    arguments = ["convert", str(path), str(output)]
    assert (
        main([*arguments, "--chunk", "32", "--shard", "96", "--codec", "lz4", "--threads", "2"])
        == 0
    )
    out, err = capfd.readouterr()
    assert (out, err) == (f"{output}\n", "")  # no bar where there is no terminal
    same_levels(zg.open_slide(path), output)
    assert main(arguments) == 1
    assert "exists; pass overwrite=True (--overwrite)" in capfd.readouterr().err
    assert main([*arguments, "--codec", "jpeg"]) == 1
    assert "go together" in capfd.readouterr().err
    assert (
        main([*arguments, "--codec", "jpeg", "--copy-tiles", "--overwrite", "--no-associated"]) == 0
    )
    assert zg.open_slide(output).levels[0].codecs == ("imagecodecs_jpeg",)


def test_the_bar_is_drawn_on_terminals(tmp_path: Path) -> None:
    import io

    from zarrgpu.convert.progress import Progress

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for quiet, shown in ((False, True), (True, False)):
        stream = Terminal()
        progress = Progress(100, stream=stream, quiet=quiet)
        progress.add(50, skipped=True)
        progress.add(50)
        progress.close()
        assert ("100%" in stream.getvalue()) == shown
    plain = io.StringIO()
    Progress(1, stream=plain).add(1)
    assert plain.getvalue() == ""


@pytest.mark.slides
@pytest.mark.parametrize("copied", [False, True])
def test_a_real_slide(tmp_path: Path, shared_data: Path, *, copied: bool) -> None:
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    options = ConvertOptions(codec="jpeg", copy_tiles=True) if copied else ConvertOptions()
    convert(path, tmp_path / "a.zarr", options=options)
    zarr.registry.register_codec("imagecodecs_jpeg", JpegForZarrPython)
    same_levels(zg.open_slide(path), tmp_path / "a.zarr")
    own = check_ome(tmp_path / "a.zarr")["zarrgpu"]
    assert sorted(own["associated_images"]) == ["label", "macro", "thumbnail"]


@pytest.mark.slides
@pytest.mark.parametrize("version", ["v0.4", "v0.5", "v0.6_scene"])
def test_real_ome_zarrs_keep_where_their_levels_lie(
    tmp_path: Path, shared_data: Path, version: str
) -> None:
    folder = shared_data / "ome" / version
    images = [folder] if version != "v0.6_scene" else sorted(folder.glob("*/sample*"))[:1]
    for path in images:
        convert(path, tmp_path / "a.zarr", options=SMALL)
        check_ome(tmp_path / "a.zarr")
        source, converted = zg.open_slide(path), zg.open_slide(tmp_path / "a.zarr")
        one, two = (parse_multiscale(each.group.attrs, "") for each in (source, converted))
        assert two.units == one.units
        assert two.axes == one.axes
        for level, array in enumerate(source.levels):
            assert_array_equal(two.affines[level], one.affines[level])
            pixels = converted.levels[level].read(device="cpu")
            assert_array_equal(pixels, array.read(device="cpu"))
        assert ("source_ome" in converted.group.attrs["zarrgpu"]) == bool(one.edges)
