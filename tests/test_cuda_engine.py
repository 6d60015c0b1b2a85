"""Law 3: emulated device == device == host == zarr-python, bit for bit.

Arrays of every codec, dtype, byte order, order, grid and shard layout are drawn, and read by
selections, patches and several at a time. The same tests run on the emulated device everywhere and,
marked gpu, on a real one.
"""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.gpu.cases import (
    boxes,
    ome_image,
    read_options,
    slices,
    stored_arrays,
)
from tests.gpu.devices import empty, open_device, same, to_device
from tests.zarr_cases import BLOSC_INNER, CHAINS, DTYPES, MemoryStore, Recipe, encode, values, write
from zarrgpu import reader
from zarrgpu.errors import DeviceUnavailableError, SelectionError
from zarrgpu.output import OutputFormat, output_format
from zarrgpu.plan.request import ReadRequest

REAL = ("bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
FLOATS = ("f2", "f4", "f8")
few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


# ---- one array -----------------------------------------------------------------------------------


@many
@given(stored_arrays(), st.data())
def test_selections_and_patches_equal_numpy_and_the_host(cuda, case, data):
    whole, array = case
    options = data.draw(read_options(array.spec))
    same(array.read(device=cuda, options=options), whole, device=cuda)
    selection = tuple(data.draw(slices(n)) for n in whole.shape)
    wanted = array.read(selection, device="cpu")
    same(array.read(selection, device=cuda, options=options), wanted, device=cuda)
    if not any(n == 0 for n in whole.shape):
        same(wanted, np.asarray(whole[selection]), device=cuda)
    starts, count = data.draw(boxes(whole.shape))
    got = array.read_patches(starts, count, device=cuda, options=options)
    same(got, array.read_patches(starts, count, device="cpu"), device=cuda)


@pytest.mark.filterwarnings("ignore:Numcodecs codecs")
@pytest.mark.parametrize("chain", CHAINS)
def test_every_chain_equals_zarr_python(cuda, chain, tmp_path):
    for number, dtype in enumerate(DTYPES):
        if (number + list(CHAINS).index(chain)) % 3:
            continue  # every dtype with a third of the chains
        data = values((37, 41), dtype, number)
        recipe = Recipe(
            chunks=(16, 20), codecs=CHAINS[chain], shards=(32, 60) if number % 2 else None,
            big_endian=number % 3 == 0, order=(1, 0) if number % 5 == 0 else None,
            missing=frozenset([(0, 1), (2, 0)]), fill_value=values((), dtype, 8)[()],
        )  # fmt: skip
        store = MemoryStore(encode(data, recipe))
        got = zg.open(store).read(device=cuda)
        if "snappy" in chain:  # zarr-python refuses to open it
            same(got, zg.open(store).read(device="cpu"), device=cuda)
            continue
        theirs = zarr.open_array(write(tmp_path / dtype, store.objects), mode="r")
        same(got, np.asarray(theirs[...]), device=cuda)


@pytest.mark.parametrize("cname", BLOSC_INNER)
@pytest.mark.parametrize("shuffle", ["noshuffle", "shuffle", "bitshuffle"])
def test_blosc_of_every_level_block_size_and_type_size(cuda, cname, shuffle):
    for clevel in range(10):
        dtype = ("u1", "u2", "f4", "f8", "c16")[clevel % 5]
        data = values((3, 1100), dtype, clevel)
        blocksize = (0, 1, 200, 333, 1024, 5000)[clevel % 6]
        codec = {"cname": cname, "clevel": clevel, "shuffle": shuffle, "blocksize": blocksize}
        recipe = Recipe(chunks=(1, 700), codecs=(("blosc", codec),), big_endian=clevel % 2 == 1)
        array = zg.open(MemoryStore(encode(data, recipe)))
        same(array.read(device=cuda), data, device=cuda)
        same(array.read((1, slice(5, None, 3)), device=cuda), data[1, 5::3], device=cuda)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 0, 2)])
def test_arrays_of_no_axes_and_of_no_elements(cuda, shape):
    data = np.zeros(shape, "f4") + 3
    array = zg.open(MemoryStore(encode(data, Recipe(chunks=(2,) * len(shape), fill_value=9))))
    same(array.read(device=cuda), data, device=cuda)
    patches = array.read_patches(np.zeros((2, len(shape)), int), (2,) * len(shape), device=cuda)
    wanted = np.full((2, *(2,) * len(shape)), 9 if shape else 3, "f4")
    same(patches, wanted, device=cuda)
    none = array.read_patches(np.zeros((0, len(shape)), int), (2,) * len(shape), device=cuda)
    assert none.shape == (0, *(2,) * len(shape))


def test_more_axes_than_a_gpu_gathers_are_refused_and_merged_ones_are_not(cuda):
    data = values((4,) * 7, "u1")
    array = zg.open(MemoryStore(encode(data, Recipe(chunks=(4,) * 7))))
    with pytest.raises(SelectionError, match=r"7 axes .*device='cpu'"):
        array.read((slice(None, None, 2),) * 7, device=cuda)
    for selection in ((slice(None, None, 2),) * 5, (*[slice(None, None, 2)] * 6, 3), ...):
        same(array.read(selection, device=cuda), data[selection], device=cuda)


def test_types_that_cannot_lie_on_a_gpu_are_refused(cuda):
    for dtype in ("<M8[ns]", "S5", "V6"):
        data = values((4,), dtype)
        recipe = Recipe(chunks=(2,), zarr_format=2, fill_value=None)
        array = zg.open(MemoryStore(encode(data, recipe)))
        with pytest.raises(SelectionError, match="device='cpu'"):
            array.read(device=cuda)


# ---- what becomes of the elements ----------------------------------------------------------------


@few
@given(stored_arrays(dtypes=REAL), st.sampled_from(FLOATS), st.data())
def test_casts_equal_the_host(cuda, case, dtype, data):
    _, array = case
    starts, count = data.draw(boxes(array.shape))
    for patches in (False, True):
        read = (lambda **k: array.read_patches(starts, count, **k)) if patches else array.read
        got, wanted = read(device=cuda, dtype=dtype), read(device="cpu", dtype=dtype)
        same(got, wanted, device=cuda, converted=dtype != array.dtype)


@st.composite
def several_arrays(draw):
    """Arrays that may differ in all but their number of axes, and boxes of them."""
    ndim = draw(st.integers(1, 4))
    one_type = draw(st.booleans())
    dtypes = (draw(st.sampled_from(REAL)),) if one_type else REAL
    arrays = [
        draw(stored_arrays(ndim=ndim, dtypes=dtypes))[1] for _ in range(draw(st.integers(1, 3)))
    ]
    n_boxes = draw(st.integers(0, 6))
    longest = [max(a.shape[axis] for a in arrays) for axis in range(ndim)]
    count = tuple(draw(st.integers(1, n + 1)) for n in longest)
    starts = [[draw(st.integers(-n, n)) for n in longest] for _ in range(n_boxes)]
    which = st.integers(0, len(arrays) - 1)
    request = ReadRequest(
        arrays=tuple(a.spec for a in arrays),
        array_index=np.array([draw(which) for _ in range(n_boxes)], np.int32),
        start=np.array(starts, np.int64).reshape(n_boxes, ndim),
        count=count,
        step=tuple(draw(st.sampled_from([1, 1, 2, 3])) for _ in range(ndim)),
    )  # fmt: skip
    dtype = draw(st.sampled_from([None, *FLOATS])) if one_type else draw(st.sampled_from(FLOATS))
    channel_axis = draw(st.none() | st.integers(0, ndim - 1))
    channels = 1 if channel_axis is None else count[channel_axis]
    normalize = None
    if draw(st.booleans()):
        normalize = (np.arange(channels) * 7.5 - 3, np.arange(channels) % 5 + 0.3)
    output = output_format(
        arrays[0].spec.dtype, dtype=dtype, normalize=normalize, channel_axis=channel_axis,
        channels=channels,
    )  # fmt: skip
    layout = tuple(draw(st.permutations(range(ndim))))
    return tuple(a.source for a in arrays), request, output, layout


@many
@given(several_arrays(), st.data())
def test_several_arrays_casts_normalisation_and_layouts_equal_the_host(cuda, case, data):
    sources, request, output, layout = case
    options = data.draw(read_options(*request.arrays))
    read = {"output": output, "layout": layout}
    wanted, _ = reader.read(sources, request, device="cpu", **read)
    got, ok = reader.read(sources, request, device=cuda, options=options, **read)
    assert ok.all()
    plain = all(output.is_plain(source.spec.dtype) for source in sources)
    same(got, wanted, device=cuda, converted=not plain)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("dtype", [None, "f2", "f4"])
@pytest.mark.parametrize("normalize", [None, (12.5, 3), ([1, 2, 3], [4, 5, 6.5])])
def test_slide_patches_equal_the_host(cuda, layout, dtype, normalize):
    slide = ome_image(values((3, 40, 50), "u2"), Recipe(chunks=(2, 16, 16), codecs=CHAINS["zstd"]))
    locations = np.array([(0, 0), (-7, 11), (30, 41), (500, 500), (31, 40)])
    arguments = {"layout": layout, "dtype": dtype, "normalize": normalize}
    wanted = slide.read_regions(locations, 0, (20, 13), device="cpu", **arguments)
    got = slide.read_regions(locations, 0, (20, 13), device=cuda, **arguments)
    same(got, wanted, device=cuda, converted=bool(dtype or normalize))


# ---- out -----------------------------------------------------------------------------------------


@few
@given(stored_arrays(), st.data())
def test_out_is_filled_on_every_element(cuda, case, data):
    whole, array = case
    out = to_device(cuda, np.full(whole.shape, values((), whole.dtype, 3)[()], whole.dtype))
    assert array.read(device=cuda, out=out) is out
    same(out, whole, device=cuda)
    starts, count = data.draw(boxes(whole.shape))
    out = empty(cuda, (len(starts), *count), whole.dtype)
    assert array.read_patches(starts, count, device=cuda, out=out) is out
    same(out, array.read_patches(starts, count, device="cpu"), device=cuda)


def test_out_that_does_not_fit_is_refused(cuda):
    data = values((6, 6), "u2")
    array = zg.open(MemoryStore(encode(data, Recipe(chunks=(4, 4)))))
    block = empty(cuda, (12, 12), "u2")
    for out in (
        block[:6, :6], block[:12:2, :6], block[:6, :5], block[:6, ::2], block[:3, :12].T,
        empty(cuda, (36,), "u2"), empty(cuda, (6, 6), "i2"), empty(cuda, (6, 6), "u1"),
        empty(cuda, (6, 6), "f4").T,
    ):  # fmt: skip
        with pytest.raises(SelectionError, match="out"):
            array.read(device=cuda, out=out)
    part = block[2:8].reshape(-1)[3:39].reshape(6, 6)  # anywhere, as long as it is contiguous
    array.read(device=cuda, out=part)
    same(part, data, device=cuda)


def test_out_on_another_device_is_refused(cuda):
    data = values((6, 6), "u2")
    array = zg.open(MemoryStore(encode(data, Recipe(chunks=(4, 4)))))
    for out in (
        np.zeros((6, 6), "u2"),
        np.zeros((6, 6), "u2").view(type("Mine", (np.ndarray,), {})),
    ):
        with pytest.raises(DeviceUnavailableError, match="on this device"):
            array.read(device=cuda, out=out)
    with pytest.raises(SelectionError, match="NumPy"):
        array.read(device="cpu", out=type("Device", (), {"shape": (6, 6)})())


def test_work_of_the_caller_on_out_is_done_first(cuda):
    """Reads into `out` wait for the caller's stream, where `out` may still be in use."""
    data = values((64, 64), "u2")
    array = zg.open(MemoryStore(encode(data, Recipe(chunks=(16, 16)))))
    driver = cuda.driver
    out = empty(cuda, (64, 64), "u2")
    pinned = driver.allocate_pinned(data.nbytes)
    pinned.array[:] = 0
    driver.copy_to_device(
        driver.view_array(out).ptr, pinned.ptr, data.nbytes, driver.current_stream()
    )
    array.read(device=cuda, out=out)
    driver.current_stream().synchronize()
    same(out, data, device=cuda)


# ---- how often the device is called --------------------------------------------------------------


@pytest.mark.parametrize(
    "chain", ["none", "zstd", "lz4", "zstd+crc32c", "blosc-lz4-bitshuffle", "blosc-blosclz-shuffle"]
)
def test_calls_do_not_grow_with_chunks(chain):
    data = values((128, 128), "u2")
    calls = []
    for side in (64, 32, 16):
        device = open_device("emulated")
        recipe = Recipe(chunks=(side, side), codecs=CHAINS[chain], missing=frozenset([(0, 0)]))
        array = zg.open(MemoryStore(encode(data, recipe)))
        starts = np.array([(1, 2), (-3, 40), (70, 20), (110, 61), (5, 5)])
        array.read_patches(starts, (30, 30), device=device)
        # some containers have streams that did not shrink: one launch for all of them
        calls.append([call for call in device.driver.launches if call != "copy_segments"])
        assert len(device.driver.launches) <= len(calls[0]) + 1
    assert calls[0] == calls[1] == calls[2]
    assert len(calls[0]) <= len(CHAINS[chain]) + 2


def test_all_codecs_and_arrays_share_their_calls():
    device = open_device("emulated")
    chosen = ["none", "zstd", "lz4", "zstd+crc32c", "crc32c", "gzip", "zlib", "zstd-checksum",
              "blosc-lz4-shuffle", "blosc-zstd-bitshuffle", "blosc-zstd-shuffle",
              "blosc-blosclz-shuffle", "blosc-zlib-shuffle"]  # fmt: skip
    data = [values((40, 900), "u2", i) for i in range(len(chosen))]
    sources = []
    for array, chain in zip(data, chosen, strict=True):
        recipe = Recipe(chunks=(16, 300), codecs=CHAINS[chain])
        sources.append(zg.open(MemoryStore(encode(array, recipe))).source)
    request = ReadRequest(
        arrays=tuple(s.spec for s in sources), array_index=np.arange(len(sources), dtype=np.int32),
        start=np.zeros((len(sources), 2), np.int64), count=(40, 900), step=(1, 1),
    )  # fmt: skip
    got, _ = reader.read(sources, request, output=OutputFormat(dtype=np.dtype("u2")), device=device)
    for i, array in enumerate(data):
        same(got[i], array, device=device)
    wanted = ["crc32c", "zstd", "lz4", "deflate", "blosclz", "checksum_parts", "checksum_verify",
              "checksum_xxh64", "unshuffle_bits", "gather"]  # fmt: skip
    assert sorted({*device.driver.launches} - {"copy_segments"}) == sorted(wanted)
    assert len(device.driver.launches) <= len(wanted) + 1
