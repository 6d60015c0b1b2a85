"""A damaged or foreign DICOM file gives the right pixels or an error that says where and why.

Never a crash, a hang, pixels of another place, or memory for what is not there.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

import zarrgpu as zg
from tests import synthetic_dicom as made
from tests.synthetic_dicom import Instance, encode_j2k, encode_jpeg, make, smooth
from tests.test_dicom import LOSSLESS, LOSSY
from zarrgpu.errors import (
    ChunkDecodeError,
    MetadataError,
    NodeNotFoundError,
    UnsupportedCodecError,
    UnsupportedFormatError,
    ZarrGPUError,
)

RGB = smooth(1, 1, 70, 90, 3)
NATIVE = Instance(image=RGB)
RLE = Instance(image=RGB, syntax=made.RLE, encode=made.encode_rle)
SPARSE = Instance(image=RGB, organization="TILED_SPARSE", shuffled=True, undefined_lengths=True)
EXTENDED = Instance(
    image=RGB, syntax=made.J2K_LOSSLESS, encode=encode_j2k(mct=True), table="extended"
)
CODED = {**LOSSLESS, **LOSSY}
PLAIN = (made.EXPLICIT, made.IMPLICIT, made.ENCAPSULATED)


def opened(folder: Path, data: bytes) -> zg.Slide:
    (folder / "a.dcm").write_bytes(data)
    return zg.open_slide(folder / "a.dcm")


def edited(edit: Callable[[Dataset], None], base: Instance = NATIVE) -> bytes:
    return make(replace(base, edit=edit))


def setting(**values: object) -> Callable[[Dataset], None]:
    """Edit that sets attributes, or deletes those that are None."""

    def edit(ds: Dataset) -> None:
        for name, value in values.items():
            if value is None:
                delattr(ds, name)
            else:
                setattr(ds, name, value)

    return edit


# ---- what is no slide ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", "CT image"),
        ("1.2.840.10008.5.1.4.1.1.66.4", "segmentation"),
        ("1.2.840.10008.5.1.4.1.1.91.1", "microscopy bulk simple annotations"),
        ("1.2.3.4", "kind of file that zarrgpu does not know"),
    ],
)
def test_another_kind_of_file_is_refused_by_name(uid, name, tmp_path):
    def edit(ds: Dataset) -> None:
        ds.file_meta.MediaStorageSOPClassUID = uid
        ds.SOPClassUID = uid

    data = edited(edit)
    with pytest.raises(UnsupportedFormatError, match=rf"a DICOM {name} \(SOP class {uid}\)"):
        opened(tmp_path, data)
    with pytest.raises(UnsupportedFormatError, match=name):
        zg.open(tmp_path)


def test_a_folder_without_dicom_is_nothing_to_read(tmp_path):
    (tmp_path / "a.dcm").write_text("no")
    with pytest.raises(NodeNotFoundError, match="nothing to read"):
        zg.open(tmp_path)


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        ("1.2.840.10008.1.2.1.99", "deflated"),
        ("1.2.840.10008.1.2.2", "big endian"),
        ("1.2.840.10008.1.2.4.100", "MPEG2"),
        ("1.2.840.10008.1.2.4.93", "multi-component"),
        ("1.2.3", "of a name that zarrgpu does not know"),
    ],
)
def test_a_transfer_syntax_that_is_not_read_is_refused_by_name(uid, name, tmp_path):
    old = made.J2K_LOSSLESS.encode()
    data = make(Instance(image=RGB, syntax=made.J2K_LOSSLESS, encode=encode_j2k(mct=True)))
    at = data.index(old) - 8
    length = struct.pack("<H", len(uid) + len(uid) % 2)
    element = data[at : at + 6] + length + uid.encode() + bytes(len(uid) % 2)
    with pytest.raises((UnsupportedFormatError, UnsupportedCodecError), match=name) as caught:
        opened(tmp_path, data[:at] + element + data[at + 8 + len(old) :])
    assert uid in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: edited(setting(PhotometricInterpretation="PALETTE COLOR")), "PALETTE COLOR"),
        (lambda: edited(setting(PhotometricInterpretation="YBR_FULL")), "YBR_FULL"),
        (lambda: edited(setting(SamplesPerPixel=2)), "2 samples"),
        (lambda: edited(setting(BitsAllocated=1, BitsStored=1, HighBit=0)), "1 bits allocated"),
        (lambda: edited(setting(BitsStored=7)), "high bit 7 of 7"),
        (lambda: edited(setting(DimensionOrganizationType="3D_TEMPORAL")), "3D_TEMPORAL"),
        (lambda: edited(setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])), "VOLUME"),
        (lambda: edited(_shift, SPARSE), "not on the grid"),
        (lambda: make(Instance(image=smooth(2, 1, 70, 90, 3))), "2 optical paths of 3 samples"),
        (
            lambda: make(
                Instance(
                    image=RGB,
                    syntax=made.J2K_LOSSLESS,
                    encode=encode_j2k(mct=True),
                    table="none",
                    fragments=2,
                )
            ),
            "40 fragments and no offset table",
        ),
    ],
)
def test_what_is_not_read_is_refused_by_name(data, message, tmp_path):
    with pytest.raises((UnsupportedFormatError, UnsupportedCodecError), match=message) as caught:
        opened(tmp_path, data())
    assert "a.dcm" in str(caught.value)


def _shift(ds: Dataset) -> None:
    for item in ds.PerFrameFunctionalGroupsSequence[3:4]:
        item.PlanePositionSlideSequence[0].RowPositionInTotalImagePixelMatrix += 1


# ---- contradictions ------------------------------------------------------------------------------

_NEEDED = (
    "ImageType",
    "SOPInstanceUID",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "TotalPixelMatrixRows",
    "TotalPixelMatrixColumns",
    "PixelData",
)


@pytest.mark.parametrize("name", _NEEDED)
def test_a_missing_attribute_is_named(name, tmp_path):
    with pytest.raises(MetadataError, match=name) as caught:
        opened(tmp_path, edited(setting(**{name: None})))
    assert caught.value.location[-1] == name


def _double(ds: Dataset) -> None:
    items = ds.PerFrameFunctionalGroupsSequence
    items[4].PlanePositionSlideSequence = items[5].PlanePositionSlideSequence


def _outside(ds: Dataset) -> None:
    item = ds.PerFrameFunctionalGroupsSequence[2]
    item.PlanePositionSlideSequence[0].ColumnPositionInTotalImagePixelMatrix = 24 * 4 + 1


def _nowhere(ds: Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence[2].PlanePositionSlideSequence = DicomSequence([])


def _no_number(ds: Dataset) -> None:
    ds.add_new(0x00280008, "CS", "TWENTY")


def _short_table(ds: Dataset) -> None:
    ds.ExtendedOffsetTable = ds.ExtendedOffsetTable[:-8]


def _table(change: Callable[[np.ndarray], None]) -> Callable[[Dataset], None]:
    def edit(ds: Dataset) -> None:
        table = np.frombuffer(ds.ExtendedOffsetTable, "<u8").copy()
        change(table)
        ds.ExtendedOffsetTable = table.tobytes()

    return edit


def _add(place: int, amount: int) -> Callable[[np.ndarray], None]:
    def change(table: np.ndarray) -> None:
        table[place] += amount

    return change


@pytest.mark.parametrize(
    ("edit", "base", "where", "message"),
    [
        (setting(NumberOfFrames="19"), NATIVE, "PixelData", "19 frames of 1152"),
        (_no_number, NATIVE, "NumberOfFrames", "expected an integer"),
        (setting(NumberOfFrames="0"), NATIVE, "NumberOfFrames", "got 0"),
        (setting(Rows=17), NATIVE, "PixelData", "expected 24480: 20 frames of 1224"),
        (setting(Rows=0), NATIVE, "Rows", "got 0"),
        (setting(Columns=1), NATIVE, "PixelData", "20 frames of 48"),
        (setting(TotalPixelMatrixColumns=1 << 31), NATIVE, "TotalPixelMatrixColumns", "at most"),
        (setting(TotalPixelMatrixRows=900), NATIVE, "NumberOfFrames", "expected 228"),
        (setting(SamplesPerPixel=1), NATIVE, "SamplesPerPixel", "RGB of 1 samples"),
        (setting(BitsStored=9), NATIVE, "BitsStored", "expected 1 to 8"),
        (setting(NumberOfOpticalPaths=2), NATIVE, "NumberOfOpticalPaths", "1 optical paths are"),
        (setting(TotalPixelMatrixFocalPlanes=2), NATIVE, "NumberOfFrames", "2 focal planes"),
        (setting(ImageType=["ORIGINAL"]), NATIVE, "ImageType", "at least 3"),
        (_double, SPARSE, "PerFrameFunctionalGroupsSequence", "frames 4 and 5 are in one place"),
        (
            setting(TotalPixelMatrixColumns=1 << 23, TotalPixelMatrixRows=1 << 8),
            SPARSE,
            "PerFrameFunctionalGroupsSequence",
            "of which 20 are there; expected at most 1048576",
        ),
        (_outside, SPARSE, "ColumnPositionInTotalImagePixelMatrix", "begins at 97"),
        (_nowhere, SPARSE, "RowPositionInTotalImagePixelMatrix", "frame 2 begins at 0"),
        (
            setting(PerFrameFunctionalGroupsSequence=None),
            SPARSE,
            "PerFrameFunctionalGroupsSequence",
            "0 items",
        ),
        (_short_table, EXTENDED, "ExtendedOffsetTable", "152 bytes, expected 160"),
        (_table(_add(19, 1 << 40)), EXTENDED, "PixelData", "frame 19 of 20"),
        (_table(_add(3, 4)), EXTENDED, "PixelData", "gap before frame 3"),
        (_table(_add(0, 2)), EXTENDED, "PixelData", "frame 0 at byte"),
        (setting(ExtendedOffsetTableLengths=None), EXTENDED, "ExtendedOffsetTableLengths", "0"),
    ],
)
def test_a_contradiction_is_an_error_that_says_where(edit, base, where, message, tmp_path):
    with pytest.raises(MetadataError, match=message) as caught:
        opened(tmp_path, edited(edit, base))
    named = [str(part) for part in caught.value.location]
    assert where in named


def test_two_images_of_one_kind_are_refused(tmp_path):
    (tmp_path / "b.dcm").write_bytes(make(Instance(image=RGB, uid="1.2.3.4")))
    with pytest.raises(UnsupportedFormatError, match="two images of 90 x 70"):
        opened(tmp_path, make(NATIVE))


def test_two_pyramids_in_one_series_are_refused(tmp_path):
    half = RGB[:, :, ::2, ::2]
    data = edited(setting(PyramidUID="1.2.8"), Instance(image=half, uid="1.2.3.4"))
    (tmp_path / "b.dcm").write_bytes(data)
    with pytest.raises(UnsupportedFormatError, match="two pyramids"):
        opened(tmp_path, edited(setting(PyramidUID="1.2.9")))


def test_levels_that_differ_are_refused(tmp_path):
    grey = Instance(image=RGB[:, :, ::2, ::2, :1], uid="1.2.3.4", photometric="MONOCHROME2")
    (tmp_path / "b.dcm").write_bytes(make(grey))
    with pytest.raises(UnsupportedFormatError, match="samples differ"):
        opened(tmp_path, make(NATIVE))


def test_an_associated_image_that_is_not_read_is_left_out_and_said(tmp_path):
    label = Instance(
        image=RGB,
        uid="1.2.3.4",
        image_type=("ORIGINAL", "PRIMARY", "LABEL", "NONE"),
        edit=setting(PhotometricInterpretation="PALETTE COLOR"),
    )
    (tmp_path / "b.dcm").write_bytes(make(label))
    slide = opened(tmp_path, make(NATIVE))
    assert "label" not in slide.associated_images
    assert "PALETTE COLOR" in slide.properties["zarrgpu.associated.label.unsupported"]


# ---- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [NATIVE, RLE, SPARSE, EXTENDED])
def test_a_truncated_file_is_an_error_at_open(base, tmp_path):
    data = make(base)
    wanted = opened(tmp_path, data).levels[0].read(device="cpu")
    np.testing.assert_array_equal(wanted, RGB[0, 0])
    ends = np.unique(np.linspace(140, len(data) - 9, 60).astype(int))
    for end in ends.tolist():
        with pytest.raises((MetadataError, UnsupportedFormatError)):
            opened(tmp_path, data[:end])


def test_nested_sequences_end_somewhere(tmp_path):
    def edit(ds: Dataset) -> None:
        inner = Dataset()
        inner.PatientID = "x"
        for _ in range(40):
            outer = Dataset()
            outer.ContentSequence = DicomSequence([inner])
            inner = outer
        ds.ContentSequence = DicomSequence([inner])

    with pytest.raises(MetadataError, match="nested more than"):
        opened(tmp_path, edited(edit))


def test_a_corrupt_frame_names_file_level_and_tile(tmp_path):
    data = bytearray(make(Instance(image=RGB, syntax=made.JPEG, encode=encode_jpeg("RGB"))))
    starts = [at for at in range(len(data) - 1) if data[at : at + 3] == b"\xff\xd8\xff"]
    data[starts[6] : starts[6] + 3] = b"\0\0\0"  # row 1, column 2
    slide = opened(tmp_path, bytes(data))
    with pytest.raises(ChunkDecodeError, match=r"level 0 tile \(row 1, column 2\).*a\.dcm"):
        slide.read_region((0, 0), 0, (90, 70), device="cpu")
    locations = [(0, 0), (50, 17), (0, 40)]
    regions, ok = slide.read_regions(locations, 0, (8, 8), device="cpu", on_error="mask")
    assert ok.tolist() == [True, False, True]
    assert not regions[1].any()


@pytest.mark.parametrize("name", [name for name, it in CODED.items() if it.syntax not in PLAIN])
def test_a_cut_off_frame_is_an_error(name, tmp_path):
    """The last fragment says that it is shorter: its frame has lost its end."""
    instance = replace(CODED[name], table="none", tile=CODED[name].image.shape[2:4])
    whole = instance.encode(made.frames_of(instance)[0][1])
    for cut in (6, len(whole) // 4 * 2):
        short = replace(instance, encode=lambda tile, cut=cut: whole[:-cut])
        slide = opened(tmp_path, make(short))
        with pytest.raises(ChunkDecodeError, match="level 0 tile"):
            slide.levels[0].read(device="cpu")


@pytest.mark.parametrize("at", [1, 3])
def test_a_wrong_basic_offset_table_is_found(at, tmp_path):
    """A table that is in order, but does not lead to items, shows when a frame is read."""
    data = bytearray(make(Instance(image=RGB, syntax=made.RLE, encode=made.encode_rle)))
    table = data.index(b"\xe0\x7f\x10\x00OB") + 20
    (old,) = struct.unpack_from("<I", data, table + 4 * at)
    struct.pack_into("<I", data, table + 4 * at, old + 2)
    slide = opened(tmp_path, bytes(data))
    with pytest.raises(ChunkDecodeError, match=r"level 0 tile.*offset table is wrong"):
        slide.levels[0].read(device="cpu")


# ---- any byte of the header ----------------------------------------------------------------------


def by_pydicom(data: bytes) -> np.ndarray | None:
    """Put together what pydicom makes of a file, the slow way; None if it makes nothing of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = pydicom.dcmread(io.BytesIO(data), force=True)
            frames = ds.pixel_array.reshape(int(ds.NumberOfFrames), ds.Rows, ds.Columns, -1)
            height, width = ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns
            down, across = -(-height // ds.Rows), -(-width // ds.Columns)
            if down * across * frames[0].size > 1 << 24:
                return None
            shape = (down * ds.Rows, across * ds.Columns, frames.shape[3])
            canvas = np.zeros(shape, frames.dtype)
            for number, frame in enumerate(frames):
                y, x = number // across * ds.Rows, number % across * ds.Columns
                if ds.get("DimensionOrganizationType") != "TILED_FULL" and (
                    "PerFrameFunctionalGroupsSequence" in ds
                ):
                    item = ds.PerFrameFunctionalGroupsSequence[number]
                    position = item.PlanePositionSlideSequence[0]
                    y = position.RowPositionInTotalImagePixelMatrix - 1
                    x = position.ColumnPositionInTotalImagePixelMatrix - 1
                canvas[y : y + ds.Rows, x : x + ds.Columns] = frame
            return canvas[:height, :width]
        except Exception:
            return None


@pytest.mark.parametrize("base", [NATIVE, RLE, SPARSE], ids=["native", "rle", "sparse"])
def test_any_mutation_of_the_header_gives_right_pixels_or_an_error(base, tmp_path):
    small = smooth(1, 1, 30, 40, 3)
    data = make(replace(base, image=small))
    end = data.index(b"\xe0\x7f\x10\x00") + 12
    rng = np.random.default_rng(11)
    errors = []
    for number in range(350):
        mutated = bytearray(data)
        for _ in range(rng.integers(1, 3)):
            at = int(rng.integers(128, end))
            kind = number % 4
            if kind == 0:
                mutated[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                mutated[at] = int(rng.integers(256))
            elif kind == 2:
                del mutated[at : at + int(rng.integers(1, 5))]
            else:
                mutated[at:at] = rng.bytes(int(rng.integers(1, 5)))
        try:
            slide = opened(tmp_path, bytes(mutated))
            level = slide.levels[0]
            if level.size > 1 << 24:
                continue
            got = level.read(device="cpu")
        except ZarrGPUError as error:
            errors.append(str(error))
            continue
        if got.shape == small.shape[2:] and np.array_equal(got, small[0, 0]):
            continue
        wanted = by_pydicom(bytes(mutated))
        assert wanted is not None, number
        np.testing.assert_array_equal(got, wanted.reshape(got.shape), err_msg=str(number))
    assert len(errors) > 50
    assert all("a.dcm" in message for message in errors)
