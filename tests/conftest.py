"""Fixtures that several test files use."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.gpu.devices import KINDS, open_device
from tests.gpu.marked import forgotten
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.resolve import cuda_problem

# tests run beside other work: slow is not wrong
settings.register_profile("zarrgpu", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("zarrgpu")


def pytest_report_header() -> str:
    """Say whether the tests marked gpu will run."""
    return f"gpu: {cuda_problem() or 'yes'}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs a GPU where there is none: a count, not a hundred skips."""
    left_out = [item for item in items if item.get_closest_marker("gpu")]
    if paths := forgotten(item.path for item in left_out):
        msg = f"tests marked gpu that tests/gpu/run would forget, see tests/gpu/marked.py: {paths}"
        raise pytest.UsageError(msg)
    if left_out and cuda_problem():
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]


collect_ignore_glob = ["oracles/*.py"]  # scripts for another zarr-python, run by hand

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images and arrays beside the repository; the test is skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session", params=KINDS)
def cuda(request: pytest.FixtureRequest) -> CudaDevice:
    """One CUDA device for all tests, so that they also reuse each other's memory."""
    return open_device(request.param)
