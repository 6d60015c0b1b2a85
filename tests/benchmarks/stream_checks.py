"""What it costs to check streams before a launch: 1,024 chunks of each codec, on one core.

Writes docs/benchmarks/stream_checks.json. Data are uint16 with shot noise; the time is that of the
tables which tell a device how to decode the chunks, all checks included.
"""

from __future__ import annotations

from typing import Any

import numcodecs
import numpy as np

from tests.benchmarks import harness
from zarrgpu.codecs.blosc_streams import parse_containers
from zarrgpu.codecs.deflate_headers import gzip_streams
from zarrgpu.codecs.zstd_frames import frames_valid

N_CHUNKS = 1024
SIZES = {"32 KiB": 1 << 15, "128 KiB": 1 << 17, "512 KiB": 1 << 19, "1 MiB": 1 << 20}
CODECS = {
    "zstd": numcodecs.Zstd(3),
    "blosc-zstd-bitshuffle": numcodecs.Blosc("zstd", 3, 2, typesize=2),
    "blosc-lz4-shuffle": numcodecs.Blosc("lz4", 5, 1, typesize=2),
    "gzip": numcodecs.GZip(1),
}


def check(name: str, payload: Any, offset: Any, nbytes: Any, decoded: int) -> Any:
    """Which streams pass."""
    full = np.full(len(offset), decoded)
    if name == "zstd":
        return frames_valid(payload, offset, nbytes, full, allow_checksum=True)
    if name == "gzip":
        return gzip_streams(payload, offset, nbytes, full).valid
    return parse_containers(payload, offset, nbytes, decoded).understood


def main() -> None:
    """Measure and write."""
    rng = np.random.default_rng(0)
    results = []
    for size, decoded in SIZES.items():
        raw = [rng.poisson(400 + 50 * k, decoded // 2).astype("<u2").tobytes() for k in range(4)]
        for name, codec in CODECS.items():
            some = [bytes(codec.encode(part)) for part in raw]
            chunks = [some[i % len(some)] for i in range(N_CHUNKS)]
            payload = np.frombuffer(b"".join(chunks), np.uint8)
            nbytes = np.array([len(chunk) for chunk in chunks])
            offset = np.cumsum(nbytes) - nbytes
            args = (name, payload, offset, nbytes, decoded)
            assert check(*args).all()
            timed = harness.measure({"check": lambda args=args: check(*args)}, repeats=15)
            results.append({"chunk": size, "codec": name, **timed["check"]})
    harness.write(
        "stream_checks",
        {"what": f"checks of {N_CHUNKS} chunks before a launch", "results": results},
    )


if __name__ == "__main__":
    main()
