"""Law: a NIfTI image reads as nibabel reads it, unscaled, by the byte ranges that are needed.

Oracle: nibabel, on files that it writes, and for what it cannot write on bytes of NumPy's.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal

import zarrgpu as zg
from tests.gpu.devices import same
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.errors import (
    ChunkDecodeError,
    MemoryBudgetError,
    MetadataError,
    NodeNotFoundError,
    UnsupportedFormatError,
    ZarrGPUError,
)
from zarrgpu.formats.nifti import CHUNK_NBYTES
from zarrgpu.formats.nifti_header import parse_header
from zarrgpu.model import ByteRange, ReadOptions
from zarrgpu.nifti import has_nifti_header, nifti_header
from zarrgpu.stores.local import LocalStore

RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
RGBA = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")])
DTYPES = [*["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "c8", "c16"], RGB, RGBA]
SFORM = np.array([[-2, 0.1, 0, 10], [0, 2.5, 0.2, -20], [0.1, 0, 3, 30], [0, 0, 0, 1.0]])


def random_array(shape: tuple[int, ...], dtype: np.dtype | str, seed: int = 0) -> np.ndarray:
    """Any bytes that are numbers without NaN."""
    rng, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype.names:
        return rng.integers(0, 256, (*shape, len(dtype.names)), np.uint8).view(dtype)[..., 0]
    if dtype.kind in "fc":
        values = rng.normal(size=(*shape, 2))
        return (
            values[..., 0] + 1j * values[..., 1] if dtype.kind == "c" else values[..., 0]
        ).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype.newbyteorder("="), endpoint=True).astype(
        dtype
    )


def write(
    path: Path, data: np.ndarray, *, version: int = 1, order: str = "<", pair: bool = False
) -> Path:
    """Write with nibabel, unscaled; sform and qform are set."""
    names = {
        (1, False): "Nifti1Image",
        (1, True): "Nifti1Pair",
        (2, False): "Nifti2Image",
        (2, True): "Nifti2Pair",
    }
    image_class = getattr(nibabel, names[version, pair], None) or getattr(
        nibabel.nifti2, names[version, pair]
    )
    header = image_class.header_class(endianness=order)
    header.set_data_dtype(data.dtype)
    image = image_class(data, SFORM, header)
    image.set_qform(SFORM, 1)
    image.to_filename(path)
    return path


@pytest.mark.parametrize("kind", ["single", "pair", "gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_version_order_and_container(
    tmp_path: Path, dtype: np.dtype | str, version: int, order: str, kind: str
) -> None:
    data = random_array((5, 4, 3, 2), dtype)
    name = {"single": "a.nii", "pair": "a.img", "gz": "a.nii.gz"}[kind]
    path = write(tmp_path / name, data, version=version, order=order, pair=kind == "pair")
    expected = nibabel.load(path)
    array = zg.open(path)
    assert isinstance(array, zg.Array)
    assert array.shape == data.shape
    assert array.dimension_names == ("x", "y", "z", "t")
    result = array.read(device="cpu")
    assert result.dtype == np.dtype(dtype)
    assert_array_equal(result, np.asarray(expected.dataobj.get_unscaled()))
    assert_array_equal(result, data)
    assert_array_equal(
        array.read((slice(1, 4), 2, slice(None, None, 2), 1), device="cpu"), data[1:4, 2, ::2, 1]
    )
    assert_allclose(array.attrs["affine"], expected.affine, atol=1e-6)
    assert array.attrs["zooms"] == [float(z) for z in expected.header.get_zooms()]
    assert (array.attrs["nifti"]["sform_code"], array.attrs["nifti"]["qform_code"]) == (2, 1)
    if kind == "pair":  # either file of a pair names it
        assert_array_equal(zg.open(tmp_path / "a.hdr").read(device="cpu"), data)


@pytest.mark.parametrize(
    "shape", [(7,), (6, 5), (4, 3, 2), (4, 3, 2, 1), (3, 2, 1, 1, 2), (2, 3, 1, 2, 1, 2, 2)]
)
def test_one_to_seven_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    data = random_array(shape, "i2")
    array = zg.open(write(tmp_path / "a.nii", data))
    assert array.shape == shape
    assert_array_equal(array.read(device="cpu"), data)


@pytest.mark.parametrize(
    "shape", [(70, 60, 50), (70, 60, 64, 3), (400, 700), (200_001,), (17, 9, 11, 300)]
)
def test_chunks_are_contiguous_runs_that_cover_the_file(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    data = random_array(shape, "i4", 3)
    array = zg.open(write(tmp_path / "a.nii", data, order=">", version=2))
    location = array.spec.location
    order = np.argsort(location.offsets)
    ends = (location.offsets + location.nbytes)[order]
    assert location.offsets.min() == 544
    assert_array_equal(location.offsets[order][1:], ends[:-1])
    assert ends[-1] == 544 + data.nbytes
    assert location.nbytes.max() <= CHUNK_NBYTES
    assert_array_equal(array.read(device="cpu"), data)
    rng = np.random.default_rng(1)
    size = tuple(max(1, n // 3) for n in shape)
    starts = rng.integers(-3, shape, (20, len(shape)))
    padded = np.pad(data, [(3, n) for n in size])
    boxes = [tuple(slice(a + 3, a + 3 + n) for a, n in zip(s, size, strict=True)) for s in starts]
    expected = np.stack([padded[box] for box in boxes])
    assert_array_equal(array.read_patches(starts, size, device="cpu"), expected)


class CountingStore(LocalStore):
    """Says how many bytes were asked for."""

    read = 0

    def get_range(self, key: str, byte_range: ByteRange, *args, **options):
        self.read += byte_range.nbytes
        return super().get_range(key, byte_range, *args, **options)


def test_a_slice_costs_its_own_bytes(tmp_path: Path) -> None:
    data = random_array((128, 128, 60), "f4")
    store = CountingStore(write(tmp_path / "a.nii", data))
    folder = CountingStore(tmp_path)
    array = zg.open(store)
    array.source.store = folder
    assert_array_equal(array.read((slice(None), slice(None), 17), device="cpu"), data[:, :, 17])
    assert folder.read == 128 * 128 * 4
    folder.read = 0
    assert_array_equal(
        array.read((slice(None), slice(10, 14), 59), device="cpu"), data[:, 10:14, 59]
    )
    assert folder.read == 128 * 4 * 4


def test_opening_reads_the_header_only(tmp_path: Path) -> None:
    class Opened(CountingStore):
        total = 0

        def get_range(self, key: str, byte_range: ByteRange, *args, **options):
            Opened.total += byte_range.nbytes
            return super().get_range(key, byte_range, *args, **options)

    path = write(tmp_path / "a.nii", random_array((64, 64, 64), "f4"))
    from zarrgpu.nifti import read_nifti

    read_nifti(Opened(tmp_path), "a.nii", str(path))
    assert Opened.total < 20_000


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 3), (1, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_affine_rules(tmp_path: Path, codes: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    header = nibabel.Nifti1Header()
    header.set_data_shape((5, 4, 3)[: 2 + seed % 2])
    quaternion = rng.normal(size=4)
    quaternion *= np.sign(quaternion[0]) / np.linalg.norm(quaternion)
    header["quatern_b"], header["quatern_c"], header["quatern_d"] = quaternion[1:]
    header["qoffset_x"], header["qoffset_y"], header["qoffset_z"] = rng.normal(size=3) * 50
    header["pixdim"][:4] = [(-1) ** seed, *rng.uniform(0.5, 3, 3)]
    header["srow_x"], header["srow_y"], header["srow_z"] = rng.normal(size=(3, 4))
    header["qform_code"], header["sform_code"] = codes
    path = tmp_path / "a.nii"
    with path.open("wb") as file:
        header["vox_offset"] = 352
        header["magic"] = b"n+1"
        file.write(header.binaryblock + bytes(4 + 4 * 60))
    parsed = nifti_header(zg.open(path))
    expected = nibabel.load(path)
    assert_allclose(parsed.affine, expected.affine, atol=1e-5)
    assert parsed.affine_source == ("sform" if codes[1] else "qform" if codes[0] else "base")
    assert (parsed.qform_code, parsed.sform_code) == codes
    for own, theirs in (
        (parsed.qform, expected.get_qform(coded=True)),
        (parsed.sform, expected.get_sform(coded=True)),
    ):
        assert (own is None) == (theirs[0] is None)
        if own is not None:
            assert_allclose(own, theirs[0], atol=1e-5)


def test_a_quaternion_that_rounding_made_too_long_is_normalised() -> None:
    from zarrgpu.formats.nifti_affine import qform_affine

    affine = qform_affine((0.6, 0.8, 1e-3), (1, 2, 3), np.ones(8))
    assert_allclose(affine[:3, :3] @ affine[:3, :3].T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Header, nibabel.Nifti2Header])
def test_half_turns_are_those_of_nibabel(kind: type) -> None:
    """What rounding leaves of a quaternion's length is no angle: 1e-7 would be 0.03 degrees."""
    turns = np.random.default_rng(0).normal(size=(50, 3))
    header = kind()
    header.set_data_shape((4, 4, 4))
    header.set_data_dtype("u1")
    header["qform_code"] = 1
    header["magic"], header["vox_offset"] = (
        (b"n+1", 352) if kind is nibabel.Nifti1Header else (b"n+2", 544)
    )
    for turn in turns / np.linalg.norm(turns, axis=1)[:, None]:
        for name, value in zip("bcd", turn, strict=True):
            header[f"quatern_{name}"] = value
        parsed = parse_header(header.binaryblock, "half turn")
        assert_allclose(parsed.affine, header.get_qform(), atol=1e-12)


def test_units_scaling_and_fields_are_attributes_and_never_applied(tmp_path: Path) -> None:
    data = random_array((4, 3, 2, 5), "i2")
    image = nibabel.Nifti1Image(data, SFORM)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((1, 2, 3, 2.5))
    image.header.set_slope_inter(0.5, -7)
    image.header["descrip"] = b"a scan"
    image.header.set_intent("estimate", name="beta")
    path = tmp_path / "a.nii"
    with path.open("wb") as file:
        image.header["magic"], image.header["vox_offset"] = b"n+1", 352
        file.write(image.header.binaryblock + bytes(4) + data.tobytes("F"))
    array = zg.open(path)
    assert array.attrs["units"] == {"space": "mm", "time": "sec"}
    assert (array.attrs["scl_slope"], array.attrs["scl_inter"]) == (0.5, -7.0)
    assert array.attrs["nifti"]["descrip"] == "a scan"
    assert array.attrs["nifti"]["intent_name"] == "beta"
    assert array.attrs["nifti"]["intent_code"] == 1001
    assert_array_equal(array.read(device="cpu"), data)


@pytest.mark.parametrize(("slope", "inter"), [(0, 5), (np.nan, 0), (np.inf, 1)])
def test_no_scaling_where_the_slope_says_none(tmp_path: Path, slope: float, inter: float) -> None:
    path = write(tmp_path / "a.nii", random_array((3, 3, 3), "u1"))
    patch(path, 112, struct.pack("<ff", slope, inter))
    header = nifti_header(zg.open(path))
    assert (header.scl_slope, header.scl_inter) == (None, None)
    assert nibabel.load(path).header.get_slope_inter() == (None, None)


def patch(path: Path, at: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)


CASES = {
    "datatype 1536": (70, struct.pack("<h", 1536), UnsupportedFormatError, "1536 (float128)"),
    "datatype 77": (70, struct.pack("<h", 77), UnsupportedFormatError, "datatype 77 is not read"),
    "no axis": (40, struct.pack("<h", 0), MetadataError, "number of axes must be 1 to 7, got 0"),
    "eight axes": (40, struct.pack("<h", 8), MetadataError, "got 8"),
    "negative": (42, struct.pack("<h", -5), MetadataError, "cannot be the shape"),
    "too large": (42, struct.pack("<3h", 32767, 32767, 32767), MetadataError, "the file has"),
    "offset": (108, struct.pack("<f", 100), MetadataError, "at least 352, got 100.0"),
    "offset nan": (108, struct.pack("<f", np.nan), MetadataError, "vox_offset"),
    "offset 1e30": (108, struct.pack("<f", 1e30), MetadataError, "vox_offset"),
    "intercept": (112, struct.pack("<ff", 2, np.nan), MetadataError, "scl_inter"),
    "analyze": (344, bytes(4), UnsupportedFormatError, "ANALYZE 7.5"),
    "magic": (344, b"n+9\0", MetadataError, "magic"),
    "zarr": (344, b"nz1\0", UnsupportedFormatError, "NIfTI-Zarr"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_headers_are_refused_by_name(tmp_path: Path, case: str) -> None:
    at, data, error, message = CASES[case]
    path = write(tmp_path / "a.nii", random_array((5, 4, 3), "i2"))
    patch(path, at, data)
    with pytest.raises(error) as caught:
        zg.open(path)
    assert message in str(caught.value)
    assert "a.nii" in str(caught.value)


def test_truncated_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", random_array((5, 4, 3), "i2"))
    whole = path.read_bytes()
    for nbytes in (4, 100, 347, 352, len(whole) - 1):
        path.write_bytes(whole[:nbytes])
        with pytest.raises(MetadataError):
            zg.open(path)


def test_a_pair_without_its_image(tmp_path: Path) -> None:
    write(tmp_path / "a.img", random_array((5, 4, 3), "i2"), pair=True)
    (tmp_path / "a.img").unlink()
    with pytest.raises(NodeNotFoundError, match=r"a\.img"):
        zg.open(tmp_path / "a.hdr")
    (tmp_path / "a.hdr").rename(tmp_path / "a.dat")
    with pytest.raises(UnsupportedFormatError, match=r"neither \.hdr nor \.img"):
        zg.open(tmp_path / "a.dat")


@pytest.mark.parametrize("version", [1, 2])
def test_every_changed_byte_of_a_header_is_an_error_or_an_image(
    tmp_path: Path, version: int
) -> None:
    path = write(tmp_path / "a.nii", random_array((5, 4, 3), "i2"), version=version)
    whole = path.read_bytes()
    nbytes = 348 if version == 1 else 540
    read = 0
    for at in range(nbytes):
        for value in (0, 0xFF):
            changed = bytearray(whole)
            changed[at] = value
            path.write_bytes(changed)
            try:
                array = zg.open(path)
                result = array.read(device="cpu")
            except ZarrGPUError:
                continue
            assert result.nbytes <= len(whole)
            read += 1
    assert 0 < read < nbytes * 2


def test_a_gzip_stream_is_read_whole_once(tmp_path: Path) -> None:
    data = random_array((64, 64, 30), "i2")
    path = write(tmp_path / "a.nii.gz", data)
    array = zg.open(path)
    assert array.chunks == array.shape
    assert array.codecs == ("gzip_part",)
    assert_array_equal(array.read((0, slice(3), 4), device="cpu"), data[0, :3, 4])
    path.unlink()  # decoded, and kept
    assert_array_equal(array.read(device="cpu"), data)
    assert array.cache.nbytes == data.nbytes


def test_cache_0_keeps_nothing_and_the_budget_holds(tmp_path: Path) -> None:
    data = random_array((64, 64, 30), "i2")
    array = zg.open(write(tmp_path / "a.nii.gz", data), cache=0)
    assert_array_equal(array.read(device="cpu"), data)
    assert array.cache.nbytes == 0
    with pytest.raises(MemoryBudgetError):
        array.read((0, 0, 0), device="cpu", options=ReadOptions(memory_budget_bytes=1000))


def test_gzip_of_many_members_and_of_bad_ones(tmp_path: Path) -> None:
    data = random_array((20, 20, 20), "i2")
    whole = write(tmp_path / "a.nii", data).read_bytes()
    path = tmp_path / "a.nii.gz"
    packed = gzip.compress(whole)

    def read() -> np.ndarray:
        return zg.open(path).read(device="cpu")

    for good in (
        b"".join(gzip.compress(whole[k : k + 3000]) for k in range(0, len(whole), 3000)),
        packed + bytes(100),
        gzip.compress(whole + bytes(500)),
    ):
        path.write_bytes(good)
        assert_array_equal(read(), data)
    flipped = bytearray(packed)
    flipped[-5] ^= 1  # of the checksum
    for bad in (
        packed[:-9],
        packed[:-4],
        bytes(flipped),
        packed + b"rubbish",
        gzip.compress(whole[:-2]),
    ):
        path.write_bytes(bad)
        with pytest.raises(ChunkDecodeError, match="gzip_part"):
            read()


def test_a_gzip_bomb_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", random_array((3, 3, 3), "u1"))
    patch(path, 42, struct.pack("<3h", 32767, 32767, 32767))
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(MetadataError, match="can decode to"):
        zg.open(tmp_path / "b.nii.gz")


def test_freesurfers_surfaces(tmp_path: Path) -> None:
    data = random_array((27307 * 6, 1, 1, 2), "f4")
    image = nibabel.Nifti1Image(data.reshape((27307, 1, 6, 2), order="F"), np.eye(4))
    path = tmp_path / "a.nii"
    image.to_filename(path)
    assert nibabel.load(path).shape == (163842, 1, 1, 2)
    assert_array_equal(zg.open(path).read(device="cpu"), data)


def test_a_device_gives_the_same(tmp_path: Path, cuda: CudaDevice) -> None:
    data = random_array((70, 60, 50), "i4")
    for name in ("a.nii", "a.nii.gz"):
        array = zg.open(write(tmp_path / name, data, order=">"))
        part = array.read((slice(3, 40), slice(2, 50, 3), slice(20, 50)), device=cuda)
        same(part, data[3:40, 2:50:3, 20:50], device=cuda)


def nifti_zarr(path: Path, data: np.ndarray, *, draft: str) -> nibabel.Nifti1Image:
    """Write two levels as the reference implementation does; gives the image of level 0."""
    image = nibabel.Nifti1Image(data, SFORM)
    image.header.set_slope_inter(2, 1)
    header = image.header.copy()
    header["magic"], header["vox_offset"] = b"n+1", 352
    zooms = [float(z) for z in image.header.get_zooms()[:3]]
    group = zarr.open_group(path, mode="w", zarr_format=2)
    stored = data.transpose(range(data.ndim)[::-1])
    rest = data.ndim - 3
    halves = (slice(None),) * rest + (slice(None, None, 2),) * 3
    for name, level in (("0", stored), ("1", stored[halves])):
        group.create_array(name, data=np.ascontiguousarray(level), chunks=(1,) * rest + (4, 4, 4))
    scale = [1.0] * rest + zooms[::-1]
    coarse = [1.0] * rest + [2 * z for z in zooms[::-1]]
    shift = [0.0] * rest + [z / 2 for z in zooms[::-1]]
    units = [{"name": n, "type": "space", "unit": "millimeter"} for n in "zyx"]
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [{"name": "t", "type": "time", "unit": "second"}][:rest] + units,
            "datasets": [
                {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]},
                {
                    "path": "1",
                    "coordinateTransformations": [
                        {"type": "scale", "scale": coarse},
                        {"type": "translation", "translation": shift},
                    ],
                },
            ],
        }
    ]
    raw = header.binaryblock
    if draft == "array":
        group.create_array("nifti", data=np.frombuffer(raw, np.uint8))
    else:
        import base64

        group.attrs["nifti"] = {"base64": base64.b64encode(raw).decode()}
    return image


@pytest.mark.parametrize("draft", ["array", "attribute"])
@pytest.mark.parametrize("shape", [(9, 8, 7), (9, 8, 7, 3)])
def test_nifti_zarr_is_a_pyramid_with_an_affine_at_each_level(
    tmp_path: Path, draft: str, shape: tuple[int, ...]
) -> None:
    data = random_array(shape, "i2")
    nifti_zarr(tmp_path / "a.nii.zarr", data, draft=draft)
    slide = zg.open(tmp_path / "a.nii.zarr")
    assert isinstance(slide, zg.Slide)
    assert has_nifti_header(slide)
    header = nifti_header(slide)
    assert_allclose(header.affine, SFORM, atol=1e-6)
    assert (header.scl_slope, header.scl_inter) == (2.0, 1.0)
    coarse = nifti_header(slide, 1)
    # the first voxel of level 1 covers two of level 0, so its centre lies half a voxel further
    assert_allclose(coarse.affine @ [0, 0, 0, 1], SFORM @ [0.5, 0.5, 0.5, 1], atol=1e-5)
    assert_allclose(coarse.affine[:3, :3], SFORM[:3, :3] * 2, atol=1e-5)
    assert_allclose(coarse.zooms[:3], np.array(header.zooms[:3]) * 2)
    with pytest.raises(IndexError, match="2 levels"):
        nifti_header(slide, 2)


def test_what_has_no_header(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=np.zeros((3, 3)))
    array = zg.open(tmp_path / "a.zarr")
    assert not has_nifti_header(array)
    with pytest.raises(UnsupportedFormatError, match="no NIfTI header"):
        nifti_header(array)
