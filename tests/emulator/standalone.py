"""Run one launch in a program built with a sanitizer, and take its memory back."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.emulator.build import blocks_are_independent, build_program
from tests.emulator.ranges import address_fields, read_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.emulator.build import Sanitizer
    from tests.emulator.memory import Allocation


class SanitizerReportError(AssertionError):
    """A sanitizer found something; the message is its report."""


def run_sanitized(
    sanitizer: Sanitizer,
    source: Path,
    kernel: str,
    grid: int,
    block: int,
    args: Sequence[int],
    is_address: Sequence[bool],
    memory: list[Allocation],
) -> list[np.ndarray]:
    """Contents of each allocation after the launch.

    Tables inside of `memory` hold the addresses of the program's own process afterwards.
    """
    program = build_program(source, (kernel,), sanitizer)
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before", Path(folder) / "after"
        independent = blocks_are_independent(source)
        before.write_bytes(_dump(kernel, grid, block, independent, args, is_address, memory))
        done = _run([str(program), str(before), str(after)])
        if done.returncode:
            raise SanitizerReportError(done.stderr or f"exit status {done.returncode}")
        content = np.fromfile(after, np.uint8)
    return np.split(content, np.cumsum([a.nbytes for a in memory])[:-1])


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    # ThreadSanitizer's shadow memory collides with highly randomised addresses: switch that off.
    if setarch := shutil.which("setarch"):
        command = [setarch, "-R", *command]
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1", "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=120
    )


def _dump(
    kernel: str,
    grid: int,
    block: int,
    independent: bool,
    args: Sequence[int],
    is_address: Sequence[bool],
    memory: list[Allocation],
) -> bytes:
    parts = [_words(len(memory))]
    for allocation in memory:
        parts += [_words(allocation.nbytes), allocation.view().tobytes()]
    moves = _address_places(kernel, args, memory)
    parts.append(_words(len(moves), *(word for move in moves for word in move)))
    parts += [_words(len(kernel)), kernel.encode(), _words(grid, block, independent, len(args))]
    for value, address in zip(args, is_address, strict=True):
        place = _find(memory, value) if address else (value & 0xFFFFFFFF, 0)
        parts.append(_words(address, *place))
    return b"".join(parts)


def _address_places(
    kernel: str, args: Sequence[int], memory: list[Allocation]
) -> list[tuple[int, int, int, int]]:
    """Allocation and offset of each address in a table, and of what it points at."""
    moves = []
    for argument, dtype, length, fields in address_fields(kernel):
        table = read_table(args[argument], dtype, args[length])
        for i, row in enumerate(table):
            for field in fields:
                if row[field]:
                    place = args[argument] + i * dtype.itemsize + dtype.fields[field][1]
                    moves.append((*_find(memory, place), *_find(memory, int(row[field]))))
    return moves


def _find(memory: list[Allocation], address: int) -> tuple[int, int]:
    for index, allocation in enumerate(memory):
        if allocation.ptr <= address <= allocation.ptr + allocation.nbytes:
            return index, address - allocation.ptr
    msg = f"address {address:#x} is in no allocation"
    raise ValueError(msg)


def _words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)
