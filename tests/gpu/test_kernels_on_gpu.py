"""The tests of the kernels, all of them, on the device that a driver gives.

They are those of every test file that runs kernels by `kernel_bench.Bench`, found here, so that a
kernel that is added is tested on a GPU too. The slow half rehearses this on the emulated driver.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.gpu.devices import open_device, to_device, to_host
from zarrgpu.devices.kernels import grid_blocks, tile_starts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zarrgpu.devices.cuda import CudaDevice

WITHOUT_A_DEVICE = {
    "test_structs_and_dtypes_are_the_same_bytes",
    "test_enums_and_constants_are_the_same_numbers",
    "test_signatures_are_those_of_the_sources",
    "test_an_image_that_nothing_decoded_is_noticed",
    "test_missing_blocks_are_noticed_and_chance_is_not",
}
"""Tests in those files that launch nothing, or change memory between launches by hand."""


def kernel_test_modules() -> list[ModuleType]:
    """Test files that run kernels by a `Bench` of their own."""
    names = [
        path.stem
        for path in sorted(Path(__file__).resolve().parents[1].glob("test_*.py"))
        if "tests.kernel_bench import Bench" in path.read_text()
    ]
    return [importlib.import_module(f"tests.{name}") for name in names]


MODULES = kernel_test_modules()
for _module in MODULES:
    for _name, _test in vars(_module).items():
        _mine = getattr(_test, "__module__", None) == _module.__name__
        if _name.startswith("test_") and _mine and _name not in WITHOUT_A_DEVICE:
            _short = _module.__name__.removeprefix("tests.test_")
            globals()[f"test_{_short}__{_name.removeprefix('test_')}"] = _test


class DeviceBench:
    """What `kernel_bench.Bench` does, through a driver alone."""

    device: CudaDevice

    def __init__(self, block_threads: int | None = None) -> None:
        self.driver = self.device.driver
        self.stream = self.driver.create_stream()
        self.block_threads = block_threads or self.driver.block_threads
        self.kept: list[Any] = []

    def empty(self, nbytes: int, misalign: int = 0) -> Any:
        """Memory with a known content; `array` is that content."""
        return self._memory(np.full(nbytes + misalign, 0xA5, np.uint8))

    def zeros(self, nbytes: int) -> Any:
        """Memory of zeros; changing `array` does not change it."""
        return self._memory(np.zeros(nbytes, np.uint8))

    def _memory(self, content: np.ndarray) -> Any:
        made = to_device(self.device, content)
        self.kept.append(made)
        ptr = self.driver.view_array(made).ptr
        return SimpleNamespace(ptr=ptr, nbytes=content.size, array=content, made=made)

    def put(self, array: np.ndarray, misalign: int = 0) -> int:
        """Address of a copy of an array, that many bytes off alignment."""
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        padded = np.concatenate([np.zeros(misalign, np.uint8), content])
        made = to_device(self.device, padded)
        self.kept.append(made)
        return self.driver.view_array(made).ptr + misalign

    def run(
        self, kernel: str, jobs: np.ndarray, sizes: Any, tile: int, *, layouts: Any = None,
        sanitizer: Any = None, watch: Any = None, zeroed: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Statuses, and the bytes of `watch` after the launch."""
        if sanitizer is not None:
            pytest.skip("sanitizers are the emulator's; compute-sanitizer is the card's")
        starts = tile_starts(sizes, tile)
        status = self.empty(4 * len(jobs))
        if zeroed:
            status.ptr = self.put(np.zeros(len(jobs), np.int32))
            status.made = self.kept[-1]
        args = [self.put(jobs), len(jobs), self.put(starts), tile]
        if layouts is not None:
            args += [self.put(layouts), len(layouts)]
        grid = grid_blocks(int(starts[-1]), self.block_threads)
        self.driver.launch(kernel, grid, self.block_threads, [*args, status.ptr], self.stream)
        self.stream.synchronize()
        watched = np.empty(0, np.uint8) if watch is None else to_host(watch.made)
        return to_host(status.made).view("<i4"), watched


@pytest.fixture(
    scope="module",
    autouse=True,
    params=[
        pytest.param("emulated", marks=pytest.mark.slow),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ],
)
def bench(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the tests use a device."""
    DeviceBench.device = open_device(request.param)
    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, "Bench", DeviceBench)
        yield
