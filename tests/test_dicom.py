"""A DICOM slide has the pixels that were put into it, and OpenSlide's names and values.

Files of every transfer syntax, offset table and frame order are made by pydicom and read whole, by
regions, by patches and on a CUDA device; OpenSlide and pydicom read the same files.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pydicom
import pytest

import zarrgpu as zg
from tests import synthetic_dicom as made
from tests.gpu.devices import same
from tests.synthetic_dicom import Instance, encode_j2k, encode_jpeg, encode_with, make, smooth
from zarrgpu.errors import MetadataError, SelectionError, UnsupportedFormatError
from zarrgpu.stores.local import LocalStore

RGB = smooth(1, 1, 70, 90, 3)
GREY = smooth(1, 1, 70, 90, 1)
DEEP = smooth(1, 1, 70, 90, 1, dtype=np.uint16)
DEEP_RGB = smooth(1, 1, 70, 90, 3, dtype=np.uint16)
SIGNED = (DEEP.astype(np.int32) - 30_000).astype(np.int16)
DERIVED = ("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED")

LOSSLESS = {
    "explicit": Instance(image=RGB),
    "implicit": Instance(image=RGB, syntax=made.IMPLICIT),
    "grey": Instance(image=GREY, photometric="MONOCHROME2"),
    "inverted grey": Instance(image=GREY, photometric="MONOCHROME1"),
    "16 bits": Instance(image=DEEP, photometric="MONOCHROME2"),
    "16 bits signed": Instance(image=SIGNED, photometric="MONOCHROME2"),
    "16 bits RGB": Instance(image=DEEP_RGB),
    "planar": Instance(image=RGB, planar=1),
    "planar 16 bits": Instance(image=DEEP_RGB, planar=1, syntax=made.IMPLICIT),
    "odd frames": Instance(image=GREY, photometric="MONOCHROME2", tile=(13, 11)),
    "in fragments": Instance(image=RGB, syntax=made.ENCAPSULATED),
    "in fragments, odd": Instance(
        image=GREY, photometric="MONOCHROME2", tile=(13, 11), syntax=made.ENCAPSULATED
    ),
    "rle": Instance(image=RGB, syntax=made.RLE, encode=made.encode_rle),
    "rle grey": Instance(
        image=GREY, syntax=made.RLE, encode=made.encode_rle, photometric="MONOCHROME2"
    ),
    "rle 16 bits": Instance(
        image=DEEP, syntax=made.RLE, encode=made.encode_rle, photometric="MONOCHROME2"
    ),
    "rle 16 bits RGB": Instance(image=DEEP_RGB, syntax=made.RLE, encode=made.encode_rle),
    "j2k": Instance(image=RGB, syntax=made.J2K_LOSSLESS, encode=encode_j2k(mct=False)),
    "j2k rct": Instance(
        image=RGB, syntax=made.J2K_LOSSLESS, encode=encode_j2k(mct=True), photometric="YBR_RCT"
    ),
    "j2k 16 bits": Instance(
        image=DEEP,
        syntax=made.J2K_LOSSLESS,
        encode=encode_j2k(mct=False),
        photometric="MONOCHROME2",
    ),
    "htj2k": Instance(
        image=RGB, syntax=made.HTJ2K, encode=encode_with("htj2k_encode"), photometric="YBR_RCT"
    ),
    "jpeg-ls": Instance(image=RGB, syntax=made.JPEG_LS, encode=encode_with("jpegls_encode")),
    "jpeg-ls 16 bits": Instance(
        image=DEEP,
        syntax=made.JPEG_LS,
        encode=encode_with("jpegls_encode"),
        photometric="MONOCHROME2",
    ),
    "jpeg xl": Instance(
        image=RGB, syntax=made.JPEG_XL, encode=encode_with("jpegxl_encode", lossless=True)
    ),
    "jpeg xl 16 bits": Instance(
        image=DEEP,
        syntax=made.JPEG_XL,
        encode=encode_with("jpegxl_encode", lossless=True),
        photometric="MONOCHROME2",
    ),
    "lossless jpeg": Instance(
        image=RGB,
        syntax=made.JPEG_LOSSLESS,
        encode=encode_with("jpeg8_encode", lossless=True, predictor=1),
    ),
}
"""Files whose pixels are exactly those that were encoded."""

LOSSY = {
    "jpeg rgb": Instance(image=RGB, syntax=made.JPEG, encode=encode_jpeg("RGB")),
    "jpeg 4:4:4": Instance(
        image=RGB,
        syntax=made.JPEG,
        encode=encode_jpeg("YCBCR", "444"),
        photometric="YBR_FULL_422",
    ),
    "jpeg 4:2:2": Instance(
        image=RGB,
        syntax=made.JPEG,
        encode=encode_jpeg("YCBCR", "422"),
        photometric="YBR_FULL_422",
    ),
    "jpeg 4:2:0": Instance(
        image=RGB,
        syntax=made.JPEG,
        encode=encode_jpeg("YCBCR", "420"),
        photometric="YBR_FULL_422",
    ),
    "j2k ict": Instance(
        image=RGB,
        syntax=made.J2K,
        encode=encode_j2k(mct=True, reversible=False, level=60),
        photometric="YBR_ICT",
    ),
    "j2k ict, not transformed": Instance(
        image=RGB,
        syntax=made.J2K,
        encode=encode_j2k(mct=False, reversible=False, level=60),
        photometric="YBR_ICT",
    ),
    "j2k rgb": Instance(
        image=RGB, syntax=made.J2K, encode=encode_j2k(mct=True, reversible=False, level=60)
    ),
}
"""Files that OpenSlide reads, and whose pixels are its."""

TABLES = [
    (table, fragments)
    for table in ("basic", "extended", "none")
    for fragments in (1, 3)
    if not (table != "basic" and fragments > 1)
]


def write(folder: Path, *instances: Instance) -> Path:
    """Write files ``0.dcm`` ...; the first one's path."""
    for number, instance in enumerate(instances):
        (folder / f"{number}.dcm").write_bytes(make(instance))
    return folder / "0.dcm"


def whole(slide: zg.Slide, level: int = 0) -> np.ndarray:
    return slide.levels[level].read(device="cpu")


def by_openslide(path: Path) -> np.ndarray:
    slide = openslide.OpenSlide(path)
    return np.asarray(slide.read_region((0, 0), 0, slide.dimensions))


def levels(n: int) -> list[Instance]:
    """Instances of a pyramid, the coarsest first, so that nothing is in order."""
    found = [
        Instance(
            image=RGB[:, :, :: 2**k, :: 2**k],
            uid=f"{made.SERIES}.100.{k}",
            spacing=(0.0005 * 2**k, 0.00025 * 2**k),
            image_type=DERIVED if k else ("ORIGINAL", "PRIMARY", "VOLUME", "NONE"),
        )
        for k in range(n)
    ]
    return found[::-1]


def associated(kind: str, seed: int) -> Instance:
    how = "RESAMPLED" if kind == "THUMBNAIL" else "NONE"
    return Instance(
        image=smooth(1, 1, 30, 40, 3, seed=seed),
        tile=(30, 40),
        uid=f"{made.SERIES}.200.{seed}",
        image_type=("ORIGINAL", "PRIMARY", kind, how),
    )


# ---- pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSLESS)
def test_pixels_are_those_that_were_encoded(name, tmp_path):
    instance = LOSSLESS[name]
    slide = zg.open(write(tmp_path, instance))
    wanted = instance.image[0, 0]
    same(whole(slide), wanted, device=None)
    region = slide.read_region((20, 10), 0, (33, 44), device="cpu")
    np.testing.assert_array_equal(region, wanted[10:54, 20:53])
    assert slide.axes == ("y", "x", "c")


@pytest.mark.parametrize("name", ["explicit", "implicit", "grey", "16 bits", "planar", "rle"])
def test_frames_are_those_of_pydicom(name, tmp_path):
    path = write(tmp_path, LOSSLESS[name])
    frames = pydicom.dcmread(path).pixel_array
    got = whole(zg.open(path))
    for (_, _, row, column), frame in zip(
        [place for place, _ in made.frames_of(LOSSLESS[name])], frames, strict=True
    ):
        part = got[row * 16 : row * 16 + 16, column * 24 : column * 24 + 24]
        frame = frame.reshape(16, 24, -1)[: part.shape[0], : part.shape[1]]
        np.testing.assert_array_equal(part, frame)


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_pixels_are_those_of_openslide(name, tmp_path):
    path = write(tmp_path, LOSSY[name])
    wanted = by_openslide(path)
    assert (wanted[..., 3] == 255).all()
    np.testing.assert_array_equal(whole(zg.open(path)), wanted[..., :3])


def recompressed(tile: np.ndarray) -> bytes:
    """JPEG XL that holds a JPEG."""
    return imagecodecs.jpegxl_encode_jpeg(encode_jpeg("YCBCR", "444")(tile))


@pytest.mark.parametrize(
    ("instance", "decode"),
    [
        (
            Instance(
                image=GREY, syntax=made.JPEG, encode=encode_jpeg(None), photometric="MONOCHROME2"
            ),
            imagecodecs.jpeg8_decode,
        ),
        (
            Instance(
                image=RGB, syntax=made.JPEG_XL, encode=recompressed, photometric="YBR_FULL_422"
            ),
            imagecodecs.jpegxl_decode,
        ),
    ],
)
def test_frames_that_openslide_does_not_read_are_those_of_imagecodecs(instance, decode, tmp_path):
    got = whole(zg.open(write(tmp_path, instance)))
    assert abs(got.astype(int) - instance.image[0, 0]).mean() < 12
    for (_, _, row, column), tile in made.frames_of(instance):
        wanted = decode(instance.encode(tile)).reshape(16, 24, -1)
        part = got[row * 16 : row * 16 + 16, column * 24 : column * 24 + 24]
        np.testing.assert_array_equal(part, wanted[: part.shape[0], : part.shape[1]])


@pytest.mark.parametrize(("table", "fragments"), TABLES)
@pytest.mark.parametrize("name", ["j2k", "rle", "in fragments, odd"])
def test_frames_are_found_by_any_table(name, table, fragments, tmp_path):
    instance = replace(LOSSLESS[name], table=table, fragments=fragments)
    slide = zg.open(write(tmp_path, instance))
    same(whole(slide), instance.image[0, 0], device=None)


def test_a_single_frame_may_be_in_fragments_without_a_table(tmp_path):
    one = Instance(
        image=RGB,
        tile=(70, 90),
        syntax=made.J2K_LOSSLESS,
        encode=encode_j2k(mct=True),
        table="none",
        fragments=3,
    )
    same(whole(zg.open(write(tmp_path, one))), RGB[0, 0], device=None)


# ---- order of frames -----------------------------------------------------------------------------


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("kind", ["TILED_SPARSE", "3D", None])
def test_sparse_tiles_are_where_they_say_and_the_others_are_the_fill_value(
    kind, undefined, tmp_path
):
    missing = frozenset({(0, 0), (2, 1), (4, 3)})
    instance = Instance(
        image=RGB,
        organization=kind,
        missing=missing,
        shuffled=True,
        undefined_lengths=undefined,
    )
    path = write(tmp_path, instance)
    wanted = RGB[0, 0].copy()
    for row, column in missing:
        wanted[row * 16 : row * 16 + 16, column * 24 : column * 24 + 24] = 0
    slide = zg.open(path)
    np.testing.assert_array_equal(whole(slide), wanted)
    theirs = by_openslide(path)
    np.testing.assert_array_equal(theirs[..., :3], wanted)
    filled = slide.with_fill_value(255).read_region((0, 0), 0, (90, 70), device="cpu")
    np.testing.assert_array_equal(filled[theirs[..., 3] == 0], 255)
    np.testing.assert_array_equal(filled[theirs[..., 3] == 255], wanted[theirs[..., 3] == 255])


@pytest.mark.parametrize("kind", ["TILED_FULL", "TILED_SPARSE"])
def test_focal_planes_and_optical_paths_are_axes(kind, tmp_path):
    planes = Instance(image=smooth(1, 3, 70, 90, 3), organization=kind, shuffled=kind[6] == "S")
    slide = zg.open(write(tmp_path, planes))
    assert slide.axes == ("z", "y", "x", "c")
    np.testing.assert_array_equal(whole(slide), planes.image[0])
    region = slide.read_region((5, 6), 0, (20, 30), position={"z": 2}, device="cpu")
    np.testing.assert_array_equal(region, planes.image[0, 2, 6:36, 5:25])

    both = Instance(
        image=smooth(2, 3, 70, 90, 1, dtype=np.uint16),
        organization=kind,
        photometric="MONOCHROME2",
        shuffled=kind[6] == "S",
    )
    slide = zg.open(write(tmp_path, both))
    assert slide.axes == ("c", "z", "y", "x")
    assert [channel["label"] for channel in slide.spec.channels] == ["stain 0", "stain 1"]
    np.testing.assert_array_equal(whole(slide), both.image[..., 0])


def test_one_plane_at_heights_that_follow_the_tissue_is_one_plane(tmp_path):
    def tilt(ds: pydicom.Dataset) -> None:
        for number, item in enumerate(ds.PerFrameFunctionalGroupsSequence):
            position = item.PlanePositionSlideSequence[0]
            position.ZOffsetInSlideCoordinateSystem = f"{number / 1000:.3f}"

    path = write(tmp_path, Instance(image=RGB, organization="TILED_SPARSE", edit=tilt))
    same(whole(zg.open(path)), RGB[0, 0], device=None)


# ---- series --------------------------------------------------------------------------------------


def test_a_series_is_a_pyramid_with_associated_images(tmp_path):
    kinds = {"label": "LABEL", "macro": "OVERVIEW", "thumbnail": "THUMBNAIL"}
    others = [associated(kind, seed) for seed, kind in enumerate(kinds.values())]
    pyramid = levels(3)
    stranger = replace(pyramid[0], series=made.SERIES + ".8", uid="1.2.3.4")
    first = write(tmp_path, *pyramid, *others, stranger)
    (tmp_path / "copy.dcm").write_bytes(first.read_bytes())
    (tmp_path / "notes.dcm").write_text("not DICOM")
    (tmp_path / "folder.dcm").mkdir()
    theirs = openslide.OpenSlide(first)
    for path in (first, tmp_path / "2.dcm", tmp_path / "4.dcm"):
        slide = zg.open_slide(path)
        assert slide.level_dimensions == theirs.level_dimensions
        assert slide.level_downsamples == theirs.level_downsamples
        for level in range(3):
            wanted = RGB[0, 0, :: 2**level, :: 2**level]
            np.testing.assert_array_equal(whole(slide, level), wanted)
        assert set(slide.associated_images) == set(theirs.associated_images) == set(kinds)
        for name in kinds:
            wanted = np.asarray(theirs.associated_images[name])[..., :3]
            np.testing.assert_array_equal(slide.associated_images[name].read(device="cpu"), wanted)
        assert slide.mpp == (0.25, 0.5)
        assert dict(slide.properties) == dict(theirs.properties)
    (tmp_path / "6.dcm").unlink()
    assert zg.open(tmp_path).level_dimensions == theirs.level_dimensions


def test_a_series_is_found_in_any_store(tmp_path):
    import zipfile

    import fsspec

    memory = fsspec.filesystem("memory")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for number, instance in enumerate(levels(2)):
            memory.pipe(f"/dicom-series/{number}.dcm", make(instance))
            archive.writestr(f"in/{number}.dcm", make(instance))
    folders = ("memory://dicom-series", str(tmp_path / "x.zip" / "in"))
    for path in [*folders, *(f"{folder}/1.dcm" for folder in folders)]:
        slide = zg.open_slide(path)
        assert slide.level_dimensions == ((90, 70), (45, 35))
        np.testing.assert_array_equal(whole(pickle.loads(pickle.dumps(slide))), RGB[0, 0])
    memory.rm("/dicom-series", recursive=True)


def test_a_folder_of_several_series_is_refused_by_name(tmp_path):
    one, other = Instance(image=RGB), Instance(image=RGB, series="1.2.9", uid="1.2.9.1")
    write(tmp_path, one, other)
    with pytest.raises(UnsupportedFormatError, match=r"2 series.*'0\.dcm', '1\.dcm'"):
        zg.open(tmp_path)


@pytest.mark.parametrize("kind", ["TILED_FULL", "TILED_SPARSE"])
@pytest.mark.parametrize("table", ["basic", "extended", "mixed"])
def test_parts_of_a_concatenation_are_joined(kind, table, tmp_path):
    cuts = [slice(7, 20), slice(0, 7)]
    parts = [
        Instance(
            image=RGB,
            organization=kind,
            uid=f"1.2.7.{number}",
            frames=cut,
            concatenation=(2 - number, 2),
            syntax=made.J2K_LOSSLESS,
            encode=encode_j2k(mct=True),
            table=("basic", "none")[number] if table == "mixed" else table,
            edit=lambda ds: setattr(ds, "SOPInstanceUIDOfConcatenationSource", "1.2.7.77"),
        )
        for number, cut in enumerate(cuts)
    ]
    path = write(tmp_path, *parts)
    same(whole(zg.open(path)), RGB[0, 0], device=None)
    np.testing.assert_array_equal(by_openslide(path)[..., :3], RGB[0, 0])
    (tmp_path / "1.dcm").unlink()
    with pytest.raises(MetadataError, match="one is missing"):
        zg.open(path)


def test_dual_personality_files_go_by_their_name(tmp_path):
    import tifffile

    tiff = io.BytesIO()
    tifffile.imwrite(tiff, RGB[0, 0], tile=(16, 32), photometric="rgb")
    data = make(Instance(image=RGB, preamble=tiff.getvalue()[:8] + bytes(120)))
    (tmp_path / "both.dcm").write_bytes(data)
    same(whole(zg.open(tmp_path / "both.dcm")), RGB[0, 0], device=None)


# ---- what is said --------------------------------------------------------------------------------


def test_properties_are_those_of_openslide(tmp_path):
    def add(ds: pydicom.Dataset) -> None:
        ds.add_new(0x00080005, "CS", "ISO_IR 192")
        ds.add_new(0x00104000, "LT", "two\\parts ")
        ds.add_new(0x00081030, "LO", " a \\ b ")
        ds.add_new(0x00080050, "SH", ["x", "y"])
        ds.add_new(0x00102160, "SH", "")
        ds.add_new(0x00101010, "AS", "042Y")
        ds.add_new(0x00280009, "AT", [0x00181063, 0x00181065])
        ds.add_new(0x00189073, "FD", [0.1, 2.5])
        ds.add_new(0x00189185, "ST", "free text")
        ds.add_new(0x00081190, "UR", "http://x/y")
        ds.add_new(0x00189313, "FD", [1.0, 2.0, 3.0])
        ds.add_new(0x00186016, "UL", 7)
        ds.add_new(0x00186020, "SL", -7)
        ds.add_new(0x00280106, "US", 3)
        ds.add_new(0x00091010, "LO", "private")
        ds.PatientName = "Ærø^Søren"

    path = write(tmp_path, Instance(image=RGB, icc=bytes(range(256)) * 2, edit=add))
    slide, theirs = zg.open(path), openslide.OpenSlide(path)
    assert dict(slide.properties) == dict(theirs.properties)
    assert slide.icc_profile == bytes(range(256)) * 2
    assert slide.mpp == (0.25, 0.5)


@pytest.mark.parametrize("spacing", [None, (0.0, 0.1)])
def test_a_pixel_size_that_is_not_stated_is_none(spacing, tmp_path):
    slide = zg.open(write(tmp_path, Instance(image=RGB, spacing=spacing, power=None)))
    assert slide.mpp[1] is None
    assert "openslide.mpp-y" not in slide.properties
    assert "openslide.objective-power" not in slide.properties


class CountingStore(LocalStore):
    """Notes what is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[int] = []

    def get_range(self, key, byte_range, *rest):
        self.reads.append(byte_range.nbytes)
        return super().get_range(key, byte_range, *rest)


@pytest.mark.parametrize("table", ["basic", "extended"])
def test_opening_reads_little_and_no_pixels(table, tmp_path):
    from zarrgpu.dicom import read_dicom_folder

    image = smooth(1, 1, 600, 600, 3)
    instance = Instance(
        image=image,
        tile=(32, 32),
        syntax=made.J2K_LOSSLESS,
        encode=encode_j2k(mct=True),
        table=table,
        icc=bytes(1 << 20),
    )
    path = write(tmp_path, instance)
    store = CountingStore(tmp_path)
    read_dicom_folder(store)
    assert path.stat().st_size > 1_700_000
    assert len(store.reads) <= 7
    assert sum(store.reads) < 64 << 10


# ---- the common path -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["planar", "rle 16 bits RGB", "in fragments, odd", "j2k"])
def test_a_device_gives_what_the_host_gives(cuda, name, tmp_path):
    instance = LOSSLESS[name]
    slide = zg.open(write(tmp_path, instance))
    locations = [(-3, -5), (0, 0), (40, 30), (85, 66)]
    wanted = slide.read_regions(locations, 0, (24, 17), device="cpu")
    np.testing.assert_array_equal(wanted[2], instance.image[0, 0, 30:47, 40:64])
    same(slide.read_regions(locations, 0, (24, 17), device=cuda), wanted, device=cuda)


def test_patches_of_a_series_go_through_a_loader(tmp_path):
    slide = zg.open(write(tmp_path, *levels(2)))
    sampler = zg.RandomPatches([slide], size=16, level=1, seed=3)
    loader = zg.PatchLoader(sampler, batch_size=4, layout="NHWC", device="cpu")
    batch = next(iter(loader))
    coarse = RGB[0, 0, ::2, ::2]
    for image, (x, y) in zip(batch.images, batch.locations, strict=True):
        at_y, at_x = int(np.floor(y / 2 + 0.5)), int(np.floor(x / 2 + 0.5))
        np.testing.assert_array_equal(image, coarse[at_y : at_y + 16, at_x : at_x + 16])


@pytest.mark.slides
def test_real_files_are_those_of_openslide(shared_data):
    for name in ("boxes_0.dcm", "boxes_1.dcm"):
        path = shared_data / "slides" / name
        slide, theirs = zg.open_slide(path), openslide.OpenSlide(path)
        assert dict(slide.properties) == dict(theirs.properties)
        np.testing.assert_array_equal(whole(slide), by_openslide(path)[..., :3])
        wanted = np.asarray(theirs.associated_images["thumbnail"])[..., :3]
        np.testing.assert_array_equal(
            slide.associated_images["thumbnail"].read(device="cpu"), wanted
        )
        profile = pydicom.dcmread(path).OpticalPathSequence[0].ICCProfile
        assert slide.icc_profile == profile
        with pytest.raises(SelectionError):
            slide.read_region((0, 0), 1, (4, 4))
