"""What is installed, what decodes where, and why there is no GPU if there is none."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from zarrgpu.codecs.device import DEVICE_DECODERS
from zarrgpu.codecs.registry import CODECS
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.driver import Driver
from zarrgpu.devices.host import available_cores
from zarrgpu.devices.native import LIBRARY, native_library
from zarrgpu.devices.nvcomp import load_nvcomp
from zarrgpu.devices.nvjpeg import load_nvjpeg
from zarrgpu.devices.nvjpeg2k import load_nvjpeg2k
from zarrgpu.devices.requests import ImageFormat
from zarrgpu.devices.resolve import cuda_problem, resolve_device
from zarrgpu.errors import DeviceUnavailableError, MissingDependencyError
from zarrgpu.plan.explain import format_nbytes

OPTIONAL: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("imagecodecs", ("imagecodecs",), "JPEG, JPEG 2000, LZW; faster deflate", "zarrgpu[slides]"),
    ("aiohttp", ("aiohttp",), "reading over http", "zarrgpu[cloud]"),
    ("s3fs", ("s3fs",), "reading from s3", "zarrgpu[cloud]"),
    ("gcsfs", ("gcsfs",), "reading from Google Cloud Storage", "zarrgpu[cloud]"),
    ("ml_dtypes", ("ml-dtypes",), "bfloat16 and other small floats", "zarrgpu[extended]"),
    ("torch", ("torch",), "the demo's model; batches as tensors", "zarrgpu[torch]"),
    ("dask", ("dask",), "lazy arrays", "zarrgpu[dask]"),
    ("matplotlib", ("matplotlib",), "the demo's report", "zarrgpu[demo]"),
    ("skimage", ("scikit-image",), "the demo's own slide", "zarrgpu[demo]"),
    ("tifffile", ("tifffile",), "writing the demo's slide", "zarrgpu[demo]"),
    ("zarr", ("zarr",), "writing the demo's OME-Zarr", "zarrgpu[demo]"),
    ("cupy", ("cupy-cuda12x", "cupy-cuda13x", "cupy"), "everything on a GPU", "zarrgpu[cuda13]"),
    (
        "nvidia.nvcomp",
        ("nvidia-nvcomp-cu12", "nvidia-nvcomp-cu13"),
        "zstd and LZ4 on a GPU",
        "zarrgpu[cuda13]",
    ),
    (
        "nvidia.nvjpeg",
        ("nvidia-nvjpeg", "nvidia-nvjpeg-cu12"),
        "JPEG on a GPU",
        "zarrgpu[cuda13]",
    ),
    (
        "nvidia.nvjpeg2k",
        ("nvidia-nvjpeg2k-cu13", "nvidia-nvjpeg2k-cu12"),
        "JPEG 2000 on a GPU",
        "zarrgpu[cuda13]",
    ),
    (
        "kvikio",
        ("kvikio-cu12", "kvikio-cu13"),
        "files straight into a GPU's memory",
        "zarrgpu[gds]",
    ),
)
"""Module, its distributions, what it is for, what to install."""

_LIBRARIES: dict[str, Callable[[], Any]] = {
    "nvCOMP": load_nvcomp, "nvJPEG": load_nvjpeg, "nvJPEG2000": load_nvjpeg2k,
}  # fmt: skip
_NVIMGCODEC = ("nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12")

IMAGE_CODECS: dict[str, ImageFormat] = {
    "jpeg": "jpeg", "imagecodecs_jpeg": "jpeg", "imagecodecs_jpeg8": "jpeg",
    "jpeg2k": "jpeg2k", "imagecodecs_jpeg2k": "jpeg2k",
}  # fmt: skip
"""Codec -> the images that a device must have a library for."""


def examine() -> list[str]:
    """Lines of the report; imports nothing heavier than the CUDA probe."""
    return [
        f"zarrgpu  {_version('zarrgpu') or 'not installed, run from the source tree'}",
        f"python   {platform.python_version()} on {platform.system()} {platform.machine()}",
        f"cores    {available_cores()}",
        f"host     {_executor()}",
        "",
        "packages",
        *_required(),
        *_optional(),
        "",
        "codecs: on the host; on a CUDA device",
        *_codecs(),
        "",
        "GPU",
        *_gpu(),
    ]


def _executor() -> str:
    """Whether reads on the host run compiled, and with which codecs."""
    library = native_library()
    if library is not None:
        return f"compiled executor: {', '.join(sorted(library.codecs - {'bytes'}))}"
    if LIBRARY.exists():
        return "in Python, because the compiled executor cannot be loaded; reinstall zarrgpu"
    return "in Python, as no C++ compiler was there to build the executor; get g++ and reinstall"


def _required() -> list[str]:
    names = ("numpy", "numcodecs", "google-crc32c", "fsspec")
    return [f"  {name:<14} {_version(name) or 'MISSING: pip install zarrgpu'}" for name in names]


def _optional() -> list[str]:
    lines = []
    for module, distributions, purpose, extra in OPTIONAL:
        found = next((v for name in distributions if (v := _version(name))), None)
        text = found or f"not installed ({purpose}): pip install '{extra}'"
        lines.append(f"  {module:<14} {text}")
    return lines


def _codecs() -> list[str]:
    """One line per codec: ready, or what it lacks."""
    lines = []
    have_imagecodecs = importlib.util.find_spec("imagecodecs") is not None
    for name, (module_name, _) in sorted(CODECS.items()):
        module = import_module(f"zarrgpu.codecs.{module_name}")
        # Codecs without another decoder go through this door; the rest need required packages only.
        through_imagecodecs = hasattr(module, "call_imagecodecs")
        ready = have_imagecodecs or not through_imagecodecs
        text = "ready" if ready else "needs imagecodecs: pip install 'zarrgpu[slides]'"
        device = DEVICE_DECODERS.get(name, "decoded on the host, then copied")
        lines.append(f"  {name:<14} {text}; {device}")
    return lines


def _gpu() -> list[str]:
    problem = cuda_problem()
    if problem:
        return [
            f"  none: {problem}",
            "  everything runs on the host, with the same results",
            *_libraries(),
        ]
    device = resolve_device("cuda")
    assert isinstance(device, CudaDevice)
    return [*describe_device(device.driver), *_libraries()]


def describe_device(driver: Driver) -> list[str]:
    """Lines about a device: what it is, how files reach it, and which codecs it decodes."""
    free, total = driver.memory_info()
    on_device: list[str] = []
    lacking: list[str] = []
    for name in sorted(DEVICE_DECODERS):
        wanted = IMAGE_CODECS.get(name)
        (on_device if wanted is None or wanted in driver.image_formats else lacking).append(name)
    lines = [
        f"  {driver.name}: {driver.description}",
        f"  memory {format_nbytes(free)} free of {format_nbytes(total)}",
        f"  {_gds(driver)}",
        f"  decodes {', '.join(on_device)}",
    ]
    if lacking:
        lines.append(f"  lacks the libraries below for {', '.join(lacking)}")
    hosts = sorted(CODECS.keys() - DEVICE_DECODERS.keys())
    return [*lines, f"  no decoder for {', '.join(hosts)}: these are decoded on the host"]


def _libraries() -> list[str]:
    """The libraries that decode on a GPU, each of which loads without one, or what to install."""
    lines = []
    for name, load in _LIBRARIES.items():
        try:
            library = load()
        except MissingDependencyError as error:
            lines.append(f"  {name:<14} not found; {str(error).rpartition('; ')[2]}")
            continue
        except DeviceUnavailableError as error:
            lines.append(f"  {name:<14} {error}")
            continue
        lines.append(f"  {name:<14} {'.'.join(map(str, library.version))}")
    found = next((v for n in _NVIMGCODEC if (v := _version(n))), None)
    installed = f"{found}, not used" if found else "not needed"
    return [
        *lines,
        f"  {'nvImageCodec':<14} {installed}: nvJPEG and nvJPEG2000 are called themselves",
    ]


def _gds(driver: Driver) -> str:
    """Whether local files are read straight into device memory, or why not."""
    if problem := driver.gds_problem:
        return f"files through pinned memory, not GPUDirect Storage: {problem}"
    return f"files by GPUDirect Storage, with {driver.gds_description}"


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
