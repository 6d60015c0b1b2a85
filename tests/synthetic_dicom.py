"""Whole-slide DICOM files made by pydicom, of every kind of tile, offset table and frame order."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
ENCAPSULATED = "1.2.840.10008.1.2.1.98"
RLE = "1.2.840.10008.1.2.5"
JPEG = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
J2K_LOSSLESS = "1.2.840.10008.1.2.4.90"
J2K = "1.2.840.10008.1.2.4.91"
JPEG_XL = "1.2.840.10008.1.2.4.110"
HTJ2K = "1.2.840.10008.1.2.4.201"
WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
SERIES = "1.2.826.0.1.3680043.8.498.1"

Encode = Callable[[NDArray[Any]], bytes]


def encode_rle(tile: NDArray[Any]) -> bytes:
    """PS3.5 annex G by pydicom: a segment per byte of a pixel, most significant first."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    samples = tile.shape[2]
    ds.Rows, ds.Columns, ds.SamplesPerPixel = tile.shape[0], tile.shape[1], samples
    ds.BitsAllocated = ds.BitsStored = tile.dtype.itemsize * 8
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = 0
    ds.PhotometricInterpretation = "RGB" if samples == 3 else "MONOCHROME2"
    if samples > 1:
        ds.PlanarConfiguration = 0
    ds.NumberOfFrames = 1
    ds.SOPInstanceUID = "1.2.3"
    ds.PixelData = tile.astype(tile.dtype.newbyteorder("<")).tobytes()
    ds["PixelData"].VR = "OW"
    ds.compress(RLE, encoding_plugin="pydicom", generate_instance_uid=False)
    from pydicom.encaps import get_frame

    return bytes(get_frame(ds.PixelData, 0, number_of_frames=1))


def _squeezed(tile: NDArray[Any]) -> NDArray[Any]:
    return tile[..., 0] if tile.shape[2] == 1 else tile


def encode_jpeg(colorspace: str | None, subsampling: str | None = None, level: int = 90) -> Encode:
    """JPEG whose stored colours are `colorspace`; pixels are RGB (or grey for None)."""

    def encode(tile: NDArray[Any]) -> bytes:
        options = {"outcolorspace": colorspace, "subsampling": subsampling} if colorspace else {}
        return bytes(imagecodecs.jpeg8_encode(_squeezed(tile), level=level, **options))

    return encode


def encode_j2k(*, mct: bool, reversible: bool = True, level: float = 0) -> Encode:
    """JPEG 2000 codestream, with or without its own component transform."""

    def encode(tile: NDArray[Any]) -> bytes:
        return bytes(
            imagecodecs.jpeg2k_encode(
                _squeezed(tile), codecformat="j2k", mct=mct, reversible=reversible, level=level
            )
        )

    return encode


def encode_with(function: str, **options: Any) -> Encode:
    """Any encoder of imagecodecs."""
    return lambda tile: bytes(getattr(imagecodecs, function)(_squeezed(tile), **options))


def raw(tile: NDArray[Any]) -> bytes:
    return tile.astype(tile.dtype.newbyteorder("<")).tobytes()


@dataclass(kw_only=True)
class Instance:
    """What to write; `image` has shape (paths, planes, height, width, samples)."""

    image: NDArray[Any]
    tile: tuple[int, int] = (16, 24)
    syntax: str = EXPLICIT
    photometric: str = "RGB"
    encode: Encode = raw
    organization: str | None = "TILED_FULL"
    table: str = "basic"
    image_type: Sequence[str] = ("ORIGINAL", "PRIMARY", "VOLUME", "NONE")
    series: str = SERIES
    uid: str = "1.2.826.0.1.3680043.8.498.2"
    spacing: tuple[float, float] | None = (0.0005, 0.00025)
    power: str | None = "40"
    icc: bytes | None = None
    planar: int = 0
    fragments: int = 1
    missing: frozenset[tuple[int, int]] = frozenset()
    undefined_lengths: bool = False
    shuffled: bool = False
    frames: slice = field(default_factory=lambda: slice(None))
    concatenation: tuple[int, int] | None = None
    preamble: bytes = bytes(128)
    edit: Callable[[Dataset], None] = lambda ds: None


def frames_of(it: Instance) -> list[tuple[tuple[int, int, int, int], NDArray[Any]]]:
    """(path, plane, row, column) and padded pixels of every frame, in the order of TILED_FULL."""
    paths, planes, height, width, _ = it.image.shape
    rows, columns = it.tile
    found = []
    for path, plane in np.ndindex(paths, planes):
        for y in range(0, height, rows):
            for x in range(0, width, columns):
                place = (path, plane, y // rows, x // columns)
                if place[2:] in it.missing:
                    continue
                part = it.image[path, plane, y : y + rows, x : x + columns]
                short = ((0, rows - part.shape[0]), (0, columns - part.shape[1]), (0, 0))
                found.append((place, np.pad(part, short, mode="edge")))
    if it.shuffled:
        np.random.default_rng(3).shuffle(found)
    return found


def make(it: Instance) -> bytes:
    """The file's bytes."""
    all_frames = frames_of(it)
    frames = all_frames[it.frames]
    ds = _dataset(it, len(frames))
    if it.concatenation is not None:
        number, total = it.concatenation
        ds.ConcatenationUID = it.series + ".77"
        ds.SOPInstanceUIDOfConcatenationSource = it.uid + ".99"
        ds.InConcatenationNumber, ds.InConcatenationTotalNumber = number, total
        ds.ConcatenationFrameOffsetNumber = it.frames.indices(len(all_frames))[0]
    if it.organization in ("TILED_SPARSE", "3D") or (it.organization is None and it.missing):
        ds.PerFrameFunctionalGroupsSequence = DicomSequence(
            [_position(it, place) for place, _ in frames]
        )
        ds["PerFrameFunctionalGroupsSequence"].is_undefined_length = it.undefined_lengths
    _set_pixels(ds, it, [tile for _, tile in frames])
    it.edit(ds)
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=True)
    written = it.preamble + out.getvalue()[128:]
    return written.replace(HTJ2K.encode(), JPEG_XL.encode(), 1) if it.syntax == JPEG_XL else written


def _dataset(it: Instance, n_frames: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(WSI)
    meta.MediaStorageSOPInstanceUID = UID(it.uid)
    # pydicom 3.0 does not know JPEG XL
    meta.TransferSyntaxUID = UID(HTJ2K if it.syntax == JPEG_XL else it.syntax)
    ds = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    paths, planes, height, width, samples = it.image.shape
    bits = it.image.dtype.itemsize * 8
    ds.SOPClassUID, ds.SOPInstanceUID = WSI, it.uid
    ds.SeriesInstanceUID, ds.StudyInstanceUID = it.series, it.series + ".5"
    ds.Modality, ds.ImageType = "SM", list(it.image_type)
    ds.PatientName, ds.PatientID, ds.SoftwareVersions = "Doe^Jane", "7", ["a", "b"]
    ds.Rows, ds.Columns, ds.NumberOfFrames = *it.tile, n_frames
    ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns = height, width
    ds.TotalPixelMatrixFocalPlanes, ds.NumberOfOpticalPaths = planes, paths
    ds.SamplesPerPixel, ds.PhotometricInterpretation = samples, it.photometric
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit, ds.PixelRepresentation = bits - 1, int(it.image.dtype.kind == "i")
    ds.PlanarConfiguration = it.planar
    if it.organization is not None:
        ds.DimensionOrganizationType = it.organization
    shared = Dataset()
    if it.spacing is not None:
        measures = Dataset()
        measures.PixelSpacing, measures.SliceThickness = list(it.spacing), 0.001
        shared.PixelMeasuresSequence = DicomSequence([measures])
    ds.SharedFunctionalGroupsSequence = DicomSequence([shared])
    ds["SharedFunctionalGroupsSequence"].is_undefined_length = it.undefined_lengths
    ds.OpticalPathSequence = DicomSequence([_optical_path(it, path) for path in range(paths)])
    return ds


def _optical_path(it: Instance, number: int) -> Dataset:
    path = Dataset()
    path.OpticalPathIdentifier, path.OpticalPathDescription = f"p{number}", f"stain {number}"
    if it.power is not None:
        path.ObjectiveLensPower = it.power
    if it.icc is not None:
        path.ICCProfile = it.icc
    return path


def _position(it: Instance, place: tuple[int, int, int, int]) -> Dataset:
    path, plane, row, column = place
    position, identification, item = Dataset(), Dataset(), Dataset()
    position.ColumnPositionInTotalImagePixelMatrix = column * it.tile[1] + 1
    position.RowPositionInTotalImagePixelMatrix = row * it.tile[0] + 1
    position.XOffsetInSlideCoordinateSystem = "0"
    position.YOffsetInSlideCoordinateSystem = "0"
    position.ZOffsetInSlideCoordinateSystem = f"{plane * 0.002:.3f}"
    identification.OpticalPathIdentifier = f"p{path}"
    item.PlanePositionSlideSequence = DicomSequence([position])
    item.OpticalPathIdentificationSequence = DicomSequence([identification])
    item.is_undefined_length_sequence_item = it.undefined_lengths
    return item


def _set_pixels(ds: Dataset, it: Instance, tiles: list[NDArray[Any]]) -> None:
    if it.planar:
        tiles = [tile.transpose(2, 0, 1) for tile in tiles]
    encoded = [it.encode(tile) for tile in tiles]
    if it.syntax in (IMPLICIT, EXPLICIT):
        data = b"".join(encoded)
        ds.PixelData = data + bytes(len(data) % 2)
        ds["PixelData"].VR = "OB" if it.image.dtype.itemsize == 1 else "OW"
        return
    items, offsets, at = [], [], 0
    for stream in encoded:
        stream += bytes(len(stream) % 2)
        step = -(-len(stream) // it.fragments)
        step += step % 2
        offsets.append(at)
        for start in range(0, len(stream), step):
            part = stream[start : start + step]
            items.append(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(part)) + part)
            at += 8 + len(part)
    table = struct.pack(f"<{len(offsets)}I", *offsets) if it.table == "basic" else b""
    if it.table == "extended":
        ds.ExtendedOffsetTable = struct.pack(f"<{len(offsets)}Q", *offsets)
        ds.ExtendedOffsetTableLengths = struct.pack(
            f"<{len(encoded)}Q", *(len(stream) + len(stream) % 2 for stream in encoded)
        )
    ds.PixelData = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(table)) + table + b"".join(items)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True


def smooth(*shape: int, seed: int = 0, dtype: Any = np.uint8) -> NDArray[Any]:
    """Pixels of shape (paths, planes, height, width, samples) that compress like tissue."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((*shape[:2], -(-shape[2] // 4) + 1, -(-shape[3] // 4) + 1, shape[4]))
    fine = coarse.repeat(4, 2).repeat(4, 3)[:, :, : shape[2], : shape[3]]
    most = min(np.iinfo(dtype).max, 60_000)
    return (fine * 0.9 * most + rng.random(shape) * 0.05 * most).astype(dtype)
