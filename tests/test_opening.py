"""Law: `open` recognises what is at a path by its content, reads metadata only, says what lacks."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import zarr

import zarrgpu as zg
from tests.zarr_cases import CHAINS, MemoryStore, Recipe, encode, values, write
from zarrgpu.errors import MetadataError, NodeNotFoundError, UnsupportedFormatError


def multiscale(version: str, *, zarr_format: int) -> tuple[dict[str, bytes], list[np.ndarray]]:
    """Objects of an OME-Zarr image of two levels, and its pixels."""
    levels = [values((3, 40, 50), "u2", 1), values((3, 20, 25), "u2", 2)]
    steps = [[{"type": "scale", "scale": [1, 0.5 * 2**i, 0.25 * 2**i]}] for i in range(2)]
    image = {
        "version": version,
        "name": "i",
        "axes": [
            {"name": "c", "type": "channel"},
            *[{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"],
        ],
        "datasets": [{"path": f"s/{i}", "coordinateTransformations": steps[i]} for i in range(2)],
    }
    if zarr_format == 3:
        attributes = {"ome": {"version": version, "multiscales": [image]}}
        document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        objects = {"zarr.json": json.dumps(document).encode()}
    else:
        objects = {
            ".zgroup": b'{"zarr_format": 2}',
            ".zattrs": json.dumps({"multiscales": [image]}).encode(),
        }
    for index, level in enumerate(levels):
        recipe = Recipe(chunks=(1, 16, 16), codecs=CHAINS["zstd"], zarr_format=zarr_format)
        objects |= {f"s/{index}/{k}": v for k, v in encode(level, recipe).items()}
    return objects, levels


@pytest.mark.parametrize(("version", "zarr_format"), [("0.4", 2), ("0.5", 3), ("0.1", 2)])
def test_multiscale_images_are_slides(version, zarr_format, tmp_path):
    objects, levels = multiscale(version, zarr_format=zarr_format)
    for where in (write(tmp_path, objects), MemoryStore(objects)):
        slide = zg.open(where)
        assert isinstance(slide, zg.Slide)
        assert slide.level_count == 2
        assert slide.mpp == (0.25, 0.5)
        for array, level in zip(slide.levels, levels, strict=True):
            np.testing.assert_array_equal(array.read(device="cpu"), level)
        assert isinstance(zg.open_slide(where), zg.Slide)
    assert isinstance(zg.open(tmp_path / "s" / "1"), zg.Array)


def test_a_missing_or_misshapen_level_is_said():
    objects, _ = multiscale("0.5", zarr_format=3)
    without = {k: v for k, v in objects.items() if not k.startswith("s/1/")}
    with pytest.raises(MetadataError, match="'s/1' is no array of 3 axes"):
        zg.open(MemoryStore(without))
    flat = {f"s/1/{k}": v for k, v in encode(values((4, 4), "u2"), Recipe(chunks=(2, 2))).items()}
    with pytest.raises(MetadataError, match="'s/1' is no array of 3 axes"):
        zg.open(MemoryStore(without | flat))


def test_slides_arrays_and_groups_are_told_apart(tmp_path):
    svs = tmp_path / "a.svs"
    svs.write_bytes(small_slide())
    assert isinstance(zg.open(svs), zg.Slide)
    assert isinstance(zg.open(svs.as_uri()), zg.Slide)
    zarr.create_array(tmp_path / "z", shape=(4,), chunks=(2,), dtype="u1")
    assert isinstance(zg.open(tmp_path / "z"), zg.Array)
    assert isinstance(zg.open(str(tmp_path / "z")), zg.Array)
    zarr.open_group(tmp_path / "g", mode="w")
    assert isinstance(zg.open(tmp_path / "g"), zg.Group)
    with pytest.raises(UnsupportedFormatError, match="is a Array, not a slide"):
        zg.open_slide(tmp_path / "z")
    with pytest.raises(NodeNotFoundError):
        zg.open_slide(tmp_path / "none")


def small_slide() -> bytes:
    import tifffile

    file = io.BytesIO()
    image = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)
    tifffile.imwrite(
        file,
        image,
        tile=(32, 32),
        photometric="rgb",
        compression="zlib",
        metadata=None,
        description="Aperio Image Library v11.2.1 \r\n80x64 [0,0 80x64] (32x32) |MPP = 0.5",
    )
    return file.getvalue()


def test_v3_wins_where_both_versions_are():
    # zarr-python reads v3 first too
    data = values((4, 4), "u1")
    both = encode(data, Recipe(chunks=(2, 2))) | {".zarray": b"not json", ".zgroup": b"{}"}
    assert zg.open(MemoryStore(both)).shape == (4, 4)


def test_opening_reads_metadata_only():
    objects, _ = multiscale("0.5", zarr_format=3)
    store = MemoryStore(objects)
    zg.open(store)
    assert [key for key, _, _ in store.requests] == ["zarr.json", "s/0/zarr.json", "s/1/zarr.json"]


def test_nodes_are_opened_by_path(tmp_path):
    objects, levels = multiscale("0.5", zarr_format=3)
    folder = write(tmp_path, objects)
    np.testing.assert_array_equal(zg.open(folder / "s/1").read(device="cpu"), levels[1])
    with pytest.raises(NodeNotFoundError, match=r"s/7'"):
        zg.open(folder / "s/7")


def test_real_images_are_slides(shared_data: Path):
    for version in ("v0.4", "v0.5"):
        slide = zg.open(shared_data / "ome" / version)
        assert isinstance(slide, zg.Slide)
        for array in slide.levels:
            wanted = zarr.open_array(shared_data / "ome" / version / array.path, mode="r")
            np.testing.assert_array_equal(array.read(device="cpu"), wanted[...])
    for name in ("v0.4_hcs", "v0.5_hcs"):
        plate = zg.open(shared_data / "ome" / name)
        assert isinstance(plate, zg.Plate)
        assert isinstance(plate["A/1/0"], zg.Slide)
    scenes = list((shared_data / "ome" / "v0.6_scene").glob("*/sample*")) + list(
        (shared_data / "ome" / "v0.6_scene").glob("*/instrument*")
    )
    assert scenes
    for image in scenes:  # of 0.6.dev3
        slide = zg.open(image)
        assert isinstance(slide, zg.Slide)
        assert slide.axes == ("z", "y", "x")
