"""Headers walked as columns say what the host's parsers say of each stream, or say nothing.

Whatever is changed in a stream: where the columns understand it, the host's parser does too, and
finds the same size, the same start of the data and an end.
"""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from tests.synthetic_slides import encode_j2k, encode_jpeg, tissue
from zarrgpu.codecs.jpeg import check_end, read_header
from zarrgpu.codecs.jpeg2k_headers import parse_codestreams
from zarrgpu.codecs.jpeg2k_stream import read_codestream
from zarrgpu.codecs.jpeg_headers import parse_headers, parse_tables

HEIGHT, WIDTH = 21, 34


def columns(streams: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Payload, offsets and sizes; each stream begins anywhere."""
    gaps = [b"\xff" * (i % 3) for i in range(len(streams))]
    nbytes = np.array([len(s) for s in streams], np.int64)
    ends = np.cumsum([len(g) + len(s) for g, s in zip(gaps, streams, strict=True)])
    payload = b"".join(g + s for g, s in zip(gaps, streams, strict=True))
    return np.frombuffer(payload, np.uint8), ends - nbytes, nbytes


def changes(stream: bytes, header_nbytes: int, n: int) -> list[bytes]:
    """The stream, every byte of its header changed in some way, and cuts of it."""
    rng = np.random.default_rng(len(stream))
    changed = [stream]
    for at in range(min(header_nbytes, len(stream))):
        values = rng.choice(256, n, replace=False).tolist()
        changed += [stream[:at] + bytes([value]) + stream[at + 1 :] for value in values]
    changed += [stream[:at] for at in range(len(stream) - 40, len(stream))]
    changed += [stream[:at] for at in range(0, min(header_nbytes, len(stream)), 7)]
    return [*changed, stream + b"\0", stream + b"abc", stream + b"\xff\xd9", b"", b"\xff\xd8"]


def jpegs() -> dict[str, bytes]:
    picture = tissue(HEIGHT, WIDTH)
    options = {"level": 80, "colorspace": "rgb", "outcolorspace": "ycbcr"}
    encoded = {s: imagecodecs.jpeg8_encode(picture, subsampling=s, **options)
               for s in ("444", "422", "420", "440")}  # fmt: skip
    encoded["gray"] = imagecodecs.jpeg8_encode(picture[..., 0].copy(), level=80)
    encoded["abbreviated"] = encode_jpeg(picture, "jpeg-rgb")[1]
    return encoded


@pytest.mark.parametrize("kind", jpegs())
def test_jpeg_headers_are_the_host_s(kind):
    stream = jpegs()[kind]
    streams = changes(stream, stream.index(b"\xff\xda") + 14, 3)
    payload, offset, nbytes = columns(streams)
    headers = parse_headers(payload, offset, nbytes)
    assert headers.understood[0]
    assert 1 < headers.understood.sum() < len(streams)
    steps = {"422": (2, 1), "420": (2, 2), "440": (1, 2)}.get(kind, (1, 1))
    assert (headers.across[0], headers.down[0]) == steps
    for i in np.flatnonzero(headers.understood):
        found = read_header(streams[i])
        check_end(streams[i], found)
        size = (headers.height[i], headers.width[i], headers.samples[i])
        assert size == (found.height, found.width, found.samples)
        assert headers.scan[i] - offset[i] == found.scan_offset
        end = headers.end[i]
        assert payload[end : end + 2].tobytes() == b"\xff\xd9"
        assert found.scan_offset <= end - offset[i] <= nbytes[i] - 2


def test_tables_are_told_from_streams_and_from_nonsense():
    tables, stream = encode_jpeg(tissue(HEIGHT, WIDTH), "jpeg-420")
    headers = parse_tables(tables)
    assert headers.understood[0]
    found = (headers.quantization[0], headers.dc[0], headers.ac[0])
    assert found == (3, 3, 3)
    payload, offset, nbytes = columns([stream])
    one = parse_headers(payload, offset, nbytes)
    assert not one.lacks_tables(quantization=3, dc=3, ac=3)[0]
    for lacking in ((1, 3, 3), (3, 1, 3), (3, 3, 2), (0, 0, 0)):
        given = dict(zip(("quantization", "dc", "ac"), lacking, strict=True))
        assert one.lacks_tables(**given)[0]
    for wrong in (stream, tables[:-2], tables[:-1], tables[2:], b"", tables + b"\0"):
        assert not parse_tables(wrong).understood[0]


def huffman_segment(counts: list[int], kind: int = 0x10) -> bytes:
    body = bytes([kind, *counts, *range(sum(counts))])
    return b"\xff\xc4" + (len(body) + 2).to_bytes(2, "big") + body


@pytest.mark.parametrize(
    ("counts", "kind", "fine"),
    [
        ([1, 1, 1] + [0] * 13, 0x10, True), ([2] + [0] * 15, 0x10, False),  # all ones is a code
        ([3] + [0] * 15, 0x10, False), ([0, 4] + [0] * 14, 0x10, False),
        ([0, 3] + [0] * 14, 0x00, True), ([0, 3] + [0] * 14, 0x20, False),
        ([0, 3] + [0] * 14, 0x05, False), ([0] * 4 + [17] + [0] * 11, 0x00, False),
    ],
)  # fmt: skip
def test_huffman_codes_that_do_not_fit_are_not_understood(counts, kind, fine):
    tables = b"\xff\xd8" + huffman_segment(counts, kind) + b"\xff\xd9"
    assert bool(parse_tables(tables).understood[0]) is fine


@pytest.mark.parametrize("kind", ["j2k-rgb", "j2k-ycbcr", "j2k-ycbcr-422"])
@pytest.mark.parametrize("boxed", [False, True])
def test_codestream_headers_are_the_host_s(kind, boxed):
    picture = tissue(HEIGHT, WIDTH)
    stream = encode_j2k(picture, kind)
    if boxed:
        stream = bytes(imagecodecs.jpeg2k_encode(picture, level=0, reversible=True))
    streams = changes(stream, 190, 3)
    payload, offset, nbytes = columns(streams)
    headers = parse_codestreams(payload, offset, nbytes)
    assert headers.understood[0]
    assert headers.across[0] == (2 if kind == "j2k-ycbcr-422" and not boxed else 1)
    for i in np.flatnonzero(headers.understood):
        found = read_codestream(streams[i])
        size = (headers.height[i], headers.width[i], headers.samples[i])
        assert size == (found.height, found.width, len(found.subsampling))
        assert (headers.precision[i], headers.signed[i]) == (found.precision, found.signed)
        part = payload[headers.start[i] : headers.end[i]].tobytes()
        assert found.data.startswith(part)
        assert part.endswith(b"\xff\xd9")


def test_a_codestream_must_have_every_tile_and_no_other():
    whole = encode_j2k(tissue(HEIGHT, WIDTH), "j2k-rgb")
    at = whole.index(b"\xff\x90")
    sizes = (17).to_bytes(4, "big") + (7).to_bytes(4, "big")  # 2 x 3 tiles
    head = whole[:24] + sizes + whole[32:at]

    def part(tile, nbytes=10):
        """A tile-part without data."""
        words = [(0xFF90, 2), (nbytes, 2), (tile, 2), (14, 4), (1, 2), (0xFF93, 2)]
        return b"".join(value.to_bytes(n, "big") for value, n in words)

    every = [part(tile) for tile in range(6)]
    fine = ([*every], every[::-1], [every[3], *every])
    bad = (every[:5], [*every[:5], part(6)], [*every[:5], every[0]], [*every[:5], part(5, 11)])
    streams = [head + b"".join(parts) + b"\xff\xd9" for parts in (*fine, *bad)]
    headers = parse_codestreams(*columns(streams))
    assert headers.understood.tolist() == [True] * len(fine) + [False] * len(bad)
