"""LZW and PackBits streams as no one encoder writes them: for tests of decoders."""

from __future__ import annotations

import numpy as np

CLEAR, END = 256, 257


def lzw(
    raw: bytes, *, lowest_first: bool = False, most_codes: int = 3836, clears: int = 1,
    end: bool = True,
) -> bytes:  # fmt: skip
    """Encode.

    Parameters
    ----------
    lowest_first : bool
        The kind of before TIFF 5.
    most_codes : int
        After so many a Clear comes, at the latest.
    clears : int
        How many at once.
    end : bool
        Whether an end code comes last.
    """
    codes: list[tuple[int, int]] = []
    table: dict[bytes, int] = {}
    count, last = 0, b""

    def put(code: int) -> None:
        size = 257 + count if count else 0  # as a decoder has it
        steps = (512, 1024, 2048)
        codes.append((code, 9 + sum(size >= step - (not lowest_first) for step in steps)))

    def put_clears() -> None:
        nonlocal count
        for _ in range(clears):
            put(CLEAR)
            count = 0

    put_clears()
    for i in range(len(raw)):
        byte = raw[i : i + 1]
        if len(last + byte) == 1 or last + byte in table:
            last += byte
            continue
        put(table.get(last, last[0]))
        count += 1
        table[last + byte] = 257 + count
        last = byte
        if count >= most_codes:
            put_clears()
            table.clear()
    if last:
        put(table.get(last, last[0]))
        count += 1
    if end:
        put(END)
    bits = [
        code >> (i if lowest_first else width - 1 - i) & 1
        for code, width in codes for i in range(width)
    ]  # fmt: skip
    packed = np.packbits(np.array(bits, np.uint8), bitorder="little" if lowest_first else "big")
    return packed.tobytes()


def packbits(rng: np.random.Generator, raw: bytes) -> bytes:
    """Encode in runs of random lengths, with bytes among them that mean nothing."""
    out, at = bytearray(), 0
    while at < len(raw):
        same = 1
        while same < 128 and raw[at : at + 1] == raw[at + same : at + same + 1]:
            same += 1
        if same > 1 and rng.random() < 0.9:
            n = int(rng.integers(2, same + 1))
            out += bytes([257 - n, raw[at]])
        else:
            n = min(int(rng.integers(1, 129)), len(raw) - at)
            out += bytes([n - 1]) + raw[at : at + n]
        at += n
        if rng.random() < 0.1:
            out.append(128)
    return bytes(out)


def reversed_bits(stream: bytes) -> bytes:
    """The bits of each byte in reverse: FillOrder 2."""
    bits = np.unpackbits(np.frombuffer(stream, np.uint8)).reshape(-1, 8)[:, ::-1]
    return np.packbits(bits).tobytes()
