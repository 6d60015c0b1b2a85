"""Gather tables say where every element goes: carried out in NumPy, they give the host's result.

Axes of one element are dropped and contiguous neighbours merged, which must not show.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.zarr_cases import MemoryStore, Recipe, encode, values
from zarrgpu import reader
from zarrgpu.devices.element_types import element_type
from zarrgpu.devices.tables import MAX_DIMS
from zarrgpu.errors import SelectionError
from zarrgpu.gather_tables import Target, check_device_dtype, gather_table
from zarrgpu.output import OutputFormat, output_format
from zarrgpu.plan.request import ReadRequest
from zarrgpu.plan.tables import PieceTable, ReadPlan


def offsets(start: int, strides: np.ndarray, extents: np.ndarray) -> np.ndarray:
    """Element offsets of a strided box, in C order."""
    total = np.full((1,), start, np.int64)
    for stride, extent in zip(strides, extents, strict=True):
        total = (total[:, None] + np.arange(extent) * stride).reshape(-1)
    return total


def carry_out(
    plan: ReadPlan, chunks: dict[int, np.ndarray], output: OutputFormat, order: tuple[int, ...]
) -> np.ndarray:
    """Place all pieces by their tables; every element of the result exactly once."""
    spec, request = plan.arrays[0], plan.request
    shape = (request.num_boxes, *(request.count[axis] for axis in order))
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    by_axis = {axis: strides[1 + place] for place, axis in enumerate(order)}
    target = Target(
        ptr=4096, nbytes=math.prod(shape) * output.dtype.itemsize, scale=0, offset=0,
        strides=(strides[0], *(by_axis[axis] for axis in range(len(order)))),
    )  # fmt: skip
    result = np.zeros(math.prod(shape), output.dtype)
    written = np.zeros(result.size, np.int64)
    channels = np.full(result.size, -1)
    for pieces, fill in ((plan.pieces, False), (plan.fills, True)):
        if not len(pieces):
            continue
        layouts, jobs = gather_table(spec, request, pieces, target, output, layout=3, fill=fill)
        (layout,) = layouts
        assert (jobs["layout"] == 3).all()
        assert (layout["target"], layout["target_nbytes"]) == (target.ptr, target.nbytes)
        assert 1 <= layout["ndim"] <= MAX_DIMS
        assert (jobs["extents"][:, : MAX_DIMS - layout["ndim"]] == 1).all()
        for row, job in enumerate(jobs):
            to = offsets(job["target_offset"], layout["target_strides"], job["extents"])
            written[to] += 1
            dim = layout["channel_dim"]
            counter = np.zeros(MAX_DIMS, np.int64)
            if dim >= 0:
                counter[dim] = 1
            channels[to] = job["channel_start"] + offsets(0, counter, job["extents"])
            if fill:
                value = np.frombuffer(layout["fill"].tobytes(), spec.dtype.newbyteorder("="), 1)
                result[to] = value.astype(output.dtype)
                continue
            source = chunks[int(pieces.chunk[row])]
            of = offsets(job["source_offset"], layout["source_strides"], job["extents"])
            result[to] = source[of].astype(output.dtype)
    assert (written == 1).all()
    if output.scale is not None and output.scale.size > 1:
        wanted = np.broadcast_to(
            np.arange(request.count[output.channel_axis]).reshape(
                [-1 if axis == output.channel_axis else 1 for axis in order]
            ),
            shape,
        )
        np.testing.assert_array_equal(channels.reshape(shape), wanted)
    return result.reshape(shape)


@st.composite
def requests(draw):
    """A stored array, boxes of it with steps, an order of the result's axes, an output."""
    ndim = draw(st.integers(0, 5))
    shape = tuple(draw(st.integers(1, (1, 40, 12, 6, 5, 4)[ndim])) for _ in range(ndim))
    chunks = tuple(draw(st.integers(1, n + 1)) for n in shape)
    all_chunks = list(np.ndindex(*(-(-n // c) for n, c in zip(shape, chunks, strict=True))))
    recipe = Recipe(
        chunks=chunks, order=tuple(draw(st.permutations(range(ndim)))) if ndim else None,
        big_endian=draw(st.booleans()), fill_value=77,
        missing=frozenset(draw(st.sets(st.sampled_from(all_chunks), max_size=2))),
    )  # fmt: skip
    data = values(shape, draw(st.sampled_from(["u1", "i4"])), 1)
    n_boxes = draw(st.integers(0, 3))
    count = tuple(draw(st.integers(1, n + 2)) for n in shape)
    starts = [[draw(st.integers(-n, n)) for n in shape] for _ in range(n_boxes)]
    source = zg.open(MemoryStore(encode(data, recipe))).source
    request = ReadRequest(
        arrays=(source.spec,), array_index=np.zeros(n_boxes, np.int32),
        start=np.array(starts, np.int64).reshape(n_boxes, ndim), count=count,
        step=tuple(draw(st.sampled_from([1, 1, 2, 5])) for _ in range(ndim)),
    )  # fmt: skip
    output = output_format(source.spec.dtype, dtype=draw(st.sampled_from([None, "f8"])))
    if ndim and draw(st.booleans()):
        axis = draw(st.integers(0, ndim - 1))
        scale = np.ones(count[axis], np.float32)
        output = OutputFormat(
            dtype=np.dtype("f4"), scale=scale, offset=0 * scale, channel_axis=axis
        )
    return source, request, output, tuple(draw(st.permutations(range(ndim))))


@settings(max_examples=200, deadline=None)
@given(requests())
def test_tables_carried_out_give_the_hosts_result(case):
    source, request, output, order = case
    plan = reader.plan_read((source,), request, options=zg.ReadOptions())
    chunks = {}
    for row, chunk_id in enumerate(plan.chunks.chunk_id.tolist()):
        coords = np.unravel_index(chunk_id, source.spec.grid_shape) if source.spec.ndim else ()
        key = source.spec.location.key_encoding.key(tuple(int(c) for c in coords))
        stored = source.store.objects.get(key)
        n = math.prod(source.spec.chunk_shape)
        chunks[row] = np.full(n, 77) if stored is None else np.frombuffer(stored, source.spec.dtype)
    wanted, _ = reader.read((source,), request, output=output, layout=order, device="cpu")
    got = carry_out(plan, chunks, output, order)
    np.testing.assert_array_equal(got, wanted)


def one_piece(extent: tuple[int, ...], chunk_shape: tuple[int, ...], **changes):
    """Layout and job of one piece of an array, with axes in the order of the array."""
    ndim = len(extent)
    data = zg.open(MemoryStore(encode(np.zeros((1,) * ndim, "u1"), Recipe(chunks=(1,) * ndim))))
    spec = replace(data.spec, shape=chunk_shape, chunk_shape=chunk_shape)
    request = ReadRequest(
        arrays=(spec,), array_index=np.zeros(1, np.int32), start=np.zeros((1, ndim), np.int64),
        count=extent, step=changes.pop("step", (1,) * ndim),
    )  # fmt: skip
    strides = tuple(math.prod(extent[i:]) for i in range(ndim + 1))
    target = Target(ptr=256, nbytes=strides[0], strides=strides, scale=0, offset=0)
    none = np.zeros((ndim, 1), np.int64)
    column = np.zeros(1, np.int32)
    pieces = PieceTable(column, column, none, none, np.array(extent, np.int64)[:, None])
    output = changes.pop("output", OutputFormat(dtype=np.dtype("u1")))
    return gather_table(
        spec, request, pieces, target, output, layout=0, fill=changes.pop("fill", False)
    )


def test_contiguous_axes_are_merged():
    rgb, job = one_piece((256, 256, 3), (512, 512, 3))
    assert rgb["ndim"] == 2
    assert job["extents"][0, -2:].tolist() == [256, 768]
    whole, job = one_piece((4, 5, 6, 7), (4, 5, 6, 7))
    assert whole["ndim"] == 1
    assert job["extents"][0, -1] == 840
    stepped, _ = one_piece((4, 5), (9, 11), step=(2, 2))
    assert stepped["ndim"] == 2
    fill, job = one_piece((4, 5, 6, 7), (9, 9, 9, 9), fill=True)
    assert fill["ndim"] == 1
    assert job["extents"][0, -1] == 840
    single, job = one_piece((1, 1, 1), (3, 3, 3))
    assert single["ndim"] == 1
    assert job["extents"].tolist() == [[1] * MAX_DIMS]


def test_channels_are_not_merged_away():
    scale = np.ones(3, np.float32)
    output = OutputFormat(dtype=np.dtype("f4"), scale=scale, offset=scale, channel_axis=2)
    layout, job = one_piece((8, 8, 3), (8, 8, 3), output=output)
    assert job["extents"][0, layout["channel_dim"][0]] == 3
    one = np.ones(1, np.float32)
    output = OutputFormat(dtype=np.dtype("f4"), scale=one, offset=one, channel_axis=2)
    layout, job = one_piece((8, 8, 3), (8, 8, 3), output=output)
    assert (layout["channel_dim"], layout["ndim"]) == (-1, 1)


def test_pieces_beyond_what_a_kernel_counts_are_refused():
    """Even where the product of the extents wraps around in 64 bits, or an extent in 32."""
    for extent in ((1 << 16, 1 << 15), (1 << 32,), (1 << 40, 1 << 40), (3 << 31, 1 << 33)):
        for fill in (False, True):
            with pytest.raises(SelectionError, match="read in parts"):
                one_piece(extent, extent, fill=fill)
    one_piece(((1 << 31) - 1,), ((1 << 31) - 1,))


def test_types_that_a_gpu_array_has():
    for dtype in ("?", "i1", "u8", ">u2", "f2", ">f8", "c8", ">c16"):
        check_device_dtype(np.dtype(dtype), "test")
        assert element_type(np.dtype(dtype)) is not None
    for dtype in ("S3", "U2", "M8[ns]", "m8[s]", "V8", [("a", "u1")]):
        with pytest.raises(SelectionError, match="device='cpu'"):
            check_device_dtype(np.dtype(dtype), "test")


def test_fill_values_are_written_in_native_order():
    for dtype in ("u1", ">u2", ">f4", ">c16", "?"):
        native = np.dtype(dtype).newbyteorder("=")
        value = values((), native, 3)[()]
        recipe = Recipe(chunks=(2,), fill_value=value, big_endian=dtype.startswith(">"))
        source = zg.open(MemoryStore(encode(np.zeros(2, native), recipe))).source
        request = ReadRequest(
            arrays=(source.spec,), array_index=np.zeros(1, np.int32), start=np.full((1, 1), 5),
            count=(2,), step=(1,),
        )  # fmt: skip
        plan = reader.plan_read((source,), request, options=zg.ReadOptions())
        target = Target(ptr=256, nbytes=64, strides=(2, 1), scale=0, offset=0)
        output = output_format(source.spec.dtype)
        layout, _ = gather_table(
            source.spec, request, plan.fills, target, output, layout=0, fill=True
        )
        assert layout["fill"].tobytes()[: native.itemsize] == value.tobytes()
        assert layout["swap_nbytes"] == 0
