"""Law: torch gets the same pixels, without a copy, in one process and in any number of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import zarrgpu as zg
from zarrgpu.errors import DeviceUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")
zarr = pytest.importorskip("zarr")

from torch.utils.data import DataLoader, IterableDataset, Subset  # noqa: E402

from zarrgpu.interop.torch import as_iterable_dataset, as_map_dataset, to_torch  # noqa: E402

PATCHES = 37
FIELDS = {"images", "locations", "slides", "indices", "valid", "symmetries"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OME-Zarr 0.5 image of two channels, every pixel of which is different from its neighbours."""
    path = tmp_path_factory.mktemp("torch") / "image.ome.zarr"
    axes = [{"name": n, "type": t} for n, t in (("c", "channel"), ("y", "space"), ("x", "space"))]
    levels = [
        {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]}
    ]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    group = zarr.create_group(path, attributes={"ome": ome})
    array = group.create_array("0", shape=(2, 150, 170), chunks=(1, 32, 32), dtype="uint16")
    array[:] = np.random.default_rng(3).integers(0, 65536, array.shape, dtype=np.uint16)
    return path


def make_loader(image: Path, **options: object) -> zg.PatchLoader:
    sampler = zg.RandomPatches(zg.open_slide(image), size=24, num_patches=PATCHES, seed=5)
    settings = {"batch_size": 8, "dtype": "float32", "device": "cpu", **options}
    return zg.PatchLoader(sampler, **settings)


def by_index(batches: object) -> dict[int, torch.Tensor]:
    """Images by number of the patch; each number may come once."""
    found: dict[int, torch.Tensor] = {}
    for batch in batches:
        for index, picture in zip(batch["indices"].tolist(), batch["images"], strict=True):
            assert index not in found
            found[index] = picture
    return found


def assert_same(found: dict[int, torch.Tensor], loader: zg.PatchLoader) -> None:
    expected = {
        int(index): picture
        for batch in loader
        for index, picture in zip(batch.indices, batch.images, strict=True)
    }
    assert found.keys() == expected.keys()
    for index, picture in found.items():
        np.testing.assert_array_equal(picture.numpy(), expected[index])


def test_a_batch_becomes_a_tensor_without_a_copy(image: Path) -> None:
    batch = next(iter(make_loader(image)))
    tensor = to_torch(batch)
    assert tensor.shape == (8, 2, 24, 24)
    assert tensor.dtype == torch.float32
    assert tensor.data_ptr() == batch.images.ctypes.data
    assert torch.from_dlpack(batch).data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i8", "f2", "f8"])
def test_an_array_becomes_a_tensor_of_its_own_type(dtype: str) -> None:
    array = np.arange(6, dtype=dtype).reshape(2, 3)
    tensor = to_torch(array)
    assert tensor.data_ptr() == array.ctypes.data
    assert str(tensor.dtype) == f"torch.{array.dtype}"
    np.testing.assert_array_equal(tensor.numpy(), array)


def test_iterable_dataset_gives_the_loader_s_batches(image: Path) -> None:
    dataset = as_iterable_dataset(make_loader(image))
    assert isinstance(dataset, IterableDataset)
    batches = list(DataLoader(dataset, batch_size=None))
    assert [set(batch) for batch in batches] == [FIELDS] * len(dataset)
    assert_same(by_index(batches), make_loader(image))
    assert dataset.state_dict() == {"epoch": 1, "batch": 0}


def test_iterable_dataset_resumes_in_mid_epoch(image: Path) -> None:
    whole = [batch["indices"].tolist() for batch in as_iterable_dataset(make_loader(image))]
    first = as_iterable_dataset(make_loader(image))
    iterator = iter(first)
    seen = [next(iterator)["indices"].tolist() for _ in range(2)]
    rest = as_iterable_dataset(make_loader(image))
    rest.load_state_dict(first.state_dict())
    assert seen + [batch["indices"].tolist() for batch in rest] == whole


def test_map_dataset_reads_what_a_torch_sampler_asks_for(image: Path) -> None:
    dataset = as_map_dataset(make_loader(image))
    shuffled = DataLoader(dataset, batch_size=8, shuffle=True, collate_fn=dataset.collate)
    assert_same(by_index(shuffled), make_loader(image))
    part = DataLoader(Subset(dataset, [4, 2, 30]), batch_size=2, collate_fn=dataset.collate)
    assert [batch["indices"].tolist() for batch in part] == [[4, 2], [30]]


def test_map_dataset_item_is_a_row_of_its_batch(image: Path) -> None:
    dataset = as_map_dataset(make_loader(image, normalize=([10.0, 20.0], [2.0, 4.0])), epoch=3)
    batch = dataset.__getitems__([0, PATCHES - 1])
    for name, value in dataset[PATCHES - 1].items():
        assert torch.equal(value, batch[name][1]), name
    other_epoch = as_map_dataset(dataset.loader, epoch=2).__getitems__([0, PATCHES - 1])
    assert not torch.equal(batch["images"], other_epoch["images"])
    with pytest.raises(IndexError, match=r"patch 37 is outside of 0\.\.36"):
        dataset[PATCHES]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on two cores
@pytest.mark.parametrize("workers", [1, 3])
def test_spawned_workers_share_the_epoch(image: Path, workers: int) -> None:
    dataset = as_iterable_dataset(make_loader(image))
    settings = {"num_workers": workers, "multiprocessing_context": "spawn"}
    dataset.set_epoch(1)
    found = by_index(DataLoader(dataset, batch_size=None, **settings))
    expected = make_loader(image)
    expected.set_epoch(1)
    assert_same(found, expected)


@pytest.mark.slow
def test_spawned_workers_read_a_map_dataset(image: Path) -> None:
    dataset = as_map_dataset(make_loader(image))
    settings = {"num_workers": 2, "multiprocessing_context": "spawn", "collate_fn": dataset.collate}
    assert_same(by_index(DataLoader(dataset, batch_size=8, **settings)), make_loader(image))


def test_kept_workers_go_on_to_the_next_epoch(image: Path) -> None:
    dataset = as_iterable_dataset(make_loader(image))
    settings = {"num_workers": 2, "persistent_workers": True, "multiprocessing_context": "fork"}
    loader = DataLoader(dataset, batch_size=None, **settings)
    expected = make_loader(image)
    for _ in range(2):
        assert_same(by_index(loader), expected)


def test_workers_refuse_a_gpu(image: Path) -> None:
    from tests.emulator.driver import EmulatedDriver
    from zarrgpu.devices.cuda import CudaDevice

    loader = make_loader(image, device=CudaDevice(EmulatedDriver()))
    settings = {"num_workers": 1, "multiprocessing_context": "fork"}
    with pytest.raises(DeviceUnavailableError, match="use num_workers=0"):
        next(iter(DataLoader(as_iterable_dataset(loader), batch_size=None, **settings)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int32])
def test_torchs_types_are_taken(image: Path, dtype: object) -> None:
    batch = next(iter(make_loader(image, dtype=dtype)))
    assert to_torch(batch).dtype == dtype


def test_bfloat16_by_dlpack_on_the_host_says_what_to_do(image: Path) -> None:
    batch = next(iter(make_loader(image, dtype="bfloat16")))
    with pytest.raises(BufferError, match="to_torch"):
        torch.from_dlpack(batch)


def test_bfloat16_becomes_torchs(image: Path) -> None:
    plain = [to_torch(batch) for batch in make_loader(image)]
    for batch, want in zip(make_loader(image, dtype="bfloat16"), plain, strict=True):
        tensor = to_torch(batch)
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, want.to(torch.bfloat16))
        assert tensor.data_ptr() == batch.images.ctypes.data


def test_integers_come_as_losses_want_them(image: Path) -> None:
    plain = [to_torch(batch) for batch in make_loader(image, dtype="uint16")]
    for batch, want in zip(make_loader(image, dtype="int64"), plain, strict=True):
        assert to_torch(batch).dtype == torch.int64
        assert torch.equal(to_torch(batch), want.to(torch.int64))


def test_both_datasets_tell_how_patches_were_turned(image: Path) -> None:
    loader = make_loader(image, augment="flips+rotations")
    want = {int(i): int(s) for b in loader for i, s in zip(b.indices, b.symmetries, strict=True)}
    loader.set_epoch(0)
    read = {int(i): p for b in loader for i, p in zip(b.indices, b.images, strict=True)}
    loader.set_epoch(0)
    dataset = as_map_dataset(loader)
    for batch in (*as_iterable_dataset(loader), dataset.__getitems__([3, 30, 4])):
        items = zip(batch["indices"], batch["symmetries"], batch["images"], strict=True)
        for index, symmetry, picture in items:
            assert int(symmetry) == want[int(index)]
            assert np.array_equal(picture.numpy(), read[int(index)])
