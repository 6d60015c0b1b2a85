"""What a planned read will do, where and why, and what it will hold: in words."""

from __future__ import annotations

from collections.abc import Sequence

from zarrgpu import cuda_engine
from zarrgpu.codecs.device import device_chain
from zarrgpu.cuda_direct import describe_fetch
from zarrgpu.devices.cuda import CudaDevice
from zarrgpu.devices.images import NAMES
from zarrgpu.devices.resolve import Device, DeviceLike, resolve_device
from zarrgpu.devices.ring import SLOTS
from zarrgpu.fetch import ArraySource, num_io_threads, sources_of
from zarrgpu.model import ReadOptions
from zarrgpu.native_engine import runs_compiled
from zarrgpu.output import OutputFormat
from zarrgpu.plan.explain import explain, format_nbytes
from zarrgpu.plan.tables import ReadPlan

_SHOWN_SOURCES = 3


def explain_read(
    plan: ReadPlan,
    sources: Sequence[ArraySource],
    output: OutputFormat,
    device: DeviceLike,
    options: ReadOptions,
) -> str:
    """Describe a plan, what it will hold and where each of its stages will run."""
    where = resolve_device(device)
    places = [source.spec.source for source in sources[:_SHOWN_SOURCES]]
    if len(sources) > _SHOWN_SOURCES:
        places.append(f"{len(sources) - _SHOWN_SOURCES} more")
    nbytes = format_nbytes(plan.output_elements * output.dtype.itemsize)
    way = "host"
    if isinstance(where, CudaDevice):
        way = describe_fetch(where.driver, sources, options)
    steps = {"fetch": f"{way}, from {', '.join(places)}"}
    for source in sources:
        names = " + ".join(codec.name for codec in source.chain.codecs) or "bytes"
        steps[f"decode {names}"] = _placement(where, source, output, options)
    steps["gather"] = where.name
    if kept := _kept(sources, where):
        steps["cache"] = kept
    launches = ""
    if isinstance(where, CudaDevice):
        expanded = sources_of(plan, sources)
        launches = cuda_engine.describe_launches(plan, expanded, options, where)
    return explain(
        plan,
        result=f"{plan.request.output_shape} {output.dtype} on {where.name}, {nbytes}",
        holds=_holds(plan, sources, where, options),
        steps=list(steps.items()),
        launches=launches,
    )


def _placement(
    device: Device, source: ArraySource, output: OutputFormat, options: ReadOptions
) -> str:
    """Where the chunks of an array are decoded, and by what."""
    if not isinstance(device, CudaDevice):
        compiled = options.native and runs_compiled(source, output)
        return f"{device.name}, compiled" if compiled else device.name
    chain = device_chain(source.chain, device.driver.image_formats)
    if chain is None:
        images = device_chain(source.chain, ("jpeg", "jpeg2k"))
        why = "no device decoder for this chain"
        if images is not None and images.image is not None:
            library, extra = NAMES[images.image.image_format], "pip install 'zarrgpu[cuda13]'"
            why = f"{library} is not there, or not for this device: {extra} (or cuda12)"
        return f"host ({why}), then copied"
    return f"{device.name} ({chain.description})"


def _kept(sources: Sequence[ArraySource], device: Device) -> str:
    """Where decoded chunks are kept between reads, and how many bytes at most; empty if nowhere."""
    caches = {id(source.cache): source.cache for source in sources if source.cache is not None}
    on_device = isinstance(device, CudaDevice)
    nbytes = sum(c.device_bytes if on_device else c.max_bytes for c in caches.values())
    return f"{device.name}, at most {format_nbytes(nbytes)} of decoded chunks" if nbytes else ""


def _holds(
    plan: ReadPlan, sources: Sequence[ArraySource], device: Device, options: ReadOptions
) -> str:
    """Memory that a read takes besides its result."""
    if isinstance(device, CudaDevice):
        budget = format_nbytes(options.memory_budget_bytes)
        return f"at most {budget} on {device.name} in up to {SLOTS} slots, and pinned memory"
    threads = max((num_io_threads(source.store, options) for source in sources), default=1)
    chunk = max((spec.chunk_nbytes for spec in plan.arrays), default=0)
    read = max(int(plan.reads.nbytes.max(initial=0)), 0)
    return f"{threads} threads x {format_nbytes(read + chunk)} on the host"
