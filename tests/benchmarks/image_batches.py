"""What the host does to hand 1,024 slide tiles to an image library: by tables, and by objects.

Ours is from the fetched bytes to what nvJPEG's C function takes: headers checked, planes laid out,
descriptors filled, all as NumPy columns. For comparison, making one object for each tile, as
nvImageCodec's Python interface wants it (``CodeStream``, which parses the header as well); measured
where that package is installed. Nothing is decoded, and no GPU is needed or used.
"""

from __future__ import annotations

import numpy as np

from tests.benchmarks import harness
from tests.synthetic_slides import encode_jpeg, tissue
from zarrgpu.codecs.device import DeviceChain, decode_tables, device_chain
from zarrgpu.codecs.registry import build_chain
from zarrgpu.cuda_work import step_work
from zarrgpu.model import CodecSpec

TILES, SIDE = 1024, 256


class NoDriver:
    """Takes the place of a driver where nothing is launched."""

    block_threads = 128


def chain_of(tables: bytes) -> DeviceChain:
    """The chain of an Aperio slide's tiles."""
    configuration = {
        "height": SIDE, "width": SIDE, "samples": 3, "colorspace": "rgb", "tables": tables,
    }  # fmt: skip
    codecs = (CodecSpec("jpeg", configuration),)
    chain = device_chain(build_chain(codecs, SIDE * SIDE * 3, source="benchmark"), ("jpeg",))
    assert chain is not None
    return chain


def prepare(chain: DeviceChain, payload: np.ndarray, offset: np.ndarray, nbytes: np.ndarray) -> int:
    """From fetched bytes to works; returns how many tiles the device takes."""
    tables = decode_tables(chain, payload, offset, nbytes, itemsize=1, verify_checksums=True)
    for step in tables.live_steps():
        step_work(NoDriver(), step.name, dict(step.columns), None)  # type: ignore[arg-type]
    return int(tables.on_device.sum())


def main() -> None:
    """Measure and write docs/benchmarks/image-batches.json."""
    pairs = [encode_jpeg(tissue(SIDE, SIDE, seed=i), "jpeg-rgb") for i in range(16)]
    tables = pairs[0][0]
    streams = [pairs[i % 16][1] for i in range(TILES)]
    nbytes = np.array([len(s) for s in streams], np.int64)
    offset = np.cumsum(nbytes) - nbytes
    payload = np.frombuffer(b"".join(streams), np.uint8)
    chain = chain_of(tables)
    assert prepare(chain, payload, offset, nbytes) == TILES
    cases = {"tables": lambda: prepare(chain, payload, offset, nbytes)}
    library = None
    try:
        from nvidia import nvimgcodec
    except ImportError:
        print("nvidia-nvimgcodec is not installed: its objects are not measured")
    else:
        library = nvimgcodec.__version__
        whole = [tables[:-2] + stream[2:] for stream in streams]  # it takes no shared tables
        cases["objects"] = lambda: [nvimgcodec.CodeStream(stream) for stream in whole]
        cases["objects, tables spliced"] = lambda: [
            nvimgcodec.CodeStream(tables[:-2] + stream[2:]) for stream in streams
        ]
    results = harness.measure(cases, repeats=31)
    document = {
        "what": f"hand {TILES} JPEG tiles of {SIDE} px with shared tables to a library",
        "nvimgcodec": library, "encoded_nbytes": int(nbytes.sum()), "results": results,
    }  # fmt: skip
    harness.write("image-batches", document)


if __name__ == "__main__":
    main()
