"""The tests of tests/test_*kernel*.py, on the device that a driver gives.

The slow half rehearses this file itself on the emulated driver.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests import (
    test_blosclz_kernel,
    test_checksum_kernels,
    test_element_kernels,
    test_kernels,
)
from tests.gpu.devices import open_device, to_device, to_host
from tests.test_blosclz_kernel import (  # noqa: F401 - collected here again
    test_a_bad_job_gets_a_status as test_a_bad_stream_gets_a_status,
)
from tests.test_blosclz_kernel import (  # noqa: F401 - collected here again
    test_changed_streams_decode_as_by_c_blosc_or_not_at_all,
    test_matches_beyond_the_short_distance,
    test_streams_by_hand,
    test_streams_of_the_real_encoder,
)
from tests.test_checksum_kernels import (  # noqa: F401 - collected here again
    test_a_bad_job_gets_a_status as test_a_bad_checksum_gets_a_status,
)
from tests.test_checksum_kernels import (  # noqa: F401 - collected here again
    test_every_byte_counts,
    test_what_is_right_passes_and_one_bit_less_does_not,
    test_xxh64_is_that_of_zstd,
)
from tests.test_element_kernels import (  # noqa: F401 - collected here again
    test_a_bad_job_gets_a_status as test_bad_elements_get_a_status,
)
from tests.test_element_kernels import (  # noqa: F401 - collected here again
    test_casts_are_those_of_numpy,
    test_delta_is_cumsum,
    test_delta_of_floats_is_cumsum,
    test_floats_at_the_ends_of_integers,
    test_packed_bools_of_numcodecs,
    test_scaling_rounds_twice_as_numpy_does,
    test_values_of_any_bits,
)
from tests.test_kernels import (  # noqa: F401 - collected here again
    test_a_bad_gather_job_gets_a_status_and_writes_nothing,
    test_a_bad_job_gets_a_status_and_writes_nothing,
    test_copy_segments,
    test_float_conversions_at_every_kind_of_value,
    test_gather_casts_and_normalises,
    test_gather_copies,
    test_many_small_jobs_and_one_large,
    test_unshuffle,
    test_unshuffle_is_the_inverse_of_blosc,
)
from zarrgpu.devices.tables import grid_blocks, tile_starts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zarrgpu.devices.cuda import CudaDevice


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
        content = np.full(nbytes + misalign, 0xA5, np.uint8)
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
        assert sanitizer is None
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
        for module in (
            test_kernels, test_checksum_kernels, test_blosclz_kernel, test_element_kernels,
        ):  # fmt: skip
            patch.setattr(module, "Bench", DeviceBench)
        yield
