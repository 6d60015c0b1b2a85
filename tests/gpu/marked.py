"""Which test files have tests for a GPU, found by reading them: a run imports no others.

usage: python -m tests.gpu.marked [--without NAME ...]

The machine that is lent has not all packages of the suite, so its run names files. The list is
made here, each time; `tests/conftest.py` refuses to collect a test marked ``gpu`` from any other
file, so that none is forgotten.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent

CUDA_FIXTURES = ("cuda",)
"""Fixtures of `tests/conftest.py` of which one parameter is a GPU."""


def is_marked(text: str) -> bool:
    """Whether a test file has ``pytest.mark.gpu``, `KINDS` or a fixture of a GPU.

    >>> is_marked("def test_a(cuda): ..."), is_marked("def test_a(tmp_path): ...")
    (True, False)
    """
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Attribute(attr="gpu", value=ast.Attribute(attr="mark")) | ast.Name(id="KINDS"):
                return True
            case ast.arg(arg=name) if name in CUDA_FIXTURES:
                return True
    return False


def marked_files() -> list[Path]:
    """Test files with tests for a GPU, sorted: those of this folder first."""
    found = [path for path in TESTS.rglob("test_*.py") if is_marked(path.read_text())]
    return sorted(found, key=lambda path: (path.parent != TESTS / "gpu", path))


def forgotten(paths: Iterable[Path]) -> list[Path]:
    """Of the files of tests marked ``gpu``, those that a run would leave out."""
    return sorted(set(paths) - set(marked_files()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without", nargs="*", default=[])
    left_out = parser.parse_args().without
    for file in marked_files():
        if file.stem not in left_out:
            print(file.relative_to(ROOT))
