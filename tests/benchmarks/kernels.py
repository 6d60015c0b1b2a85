"""Registers, shared memory and spills of every kernel on every architecture, as a record.

usage: python -m tests.benchmarks.kernels [--all] [--check]

Writes docs/benchmarks/kernels.json by NVRTC, fully optimised as on a user's machine; no GPU is
needed. Sources that changed since, or headers of theirs, are compiled again, and those that now use
other resources on one architecture, as they do after a change of common.cuh that matters to them;
--all compiles them all, --check only says which sources changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.nvrtc_bindings import BindingsNvrtc
from zarrgpu.devices.kernel_sources import compile_module, kernels_folder, source_names

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
RECORD = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "kernels.json"

_ENTRY = re.compile(
    r"entry function '(?P<name>\w+)' for '(?P<target>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)
SHARED = "common.cuh"
"""What every kernel includes, and most of which most kernels do not use."""

OPTIMISED = 90
"""The architecture that tests compile for as a user's device would (H100, H200)."""

_COMMENT = re.compile(r"//[^\n]*")
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"', re.MULTILINE)


def resources(log: str) -> dict[str, dict[str, int]]:
    """What ptxas says of each kernel of a source (``--ptxas-options=-v``)."""
    found = {}
    for entry in _ENTRY.finditer(log):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        found[entry["name"]] = {
            "registers": int(entry["registers"]),
            "shared_bytes": int(shared[1]) if shared else 0,
            "spill_bytes": int(entry["stores"]) + int(entry["loads"]),
            "stack_bytes": int(entry["stack"]),
        }
    return found


def source_hash(name: str) -> str:
    """Of a .cu file and of all headers that it includes, without comments, but for `SHARED`."""
    known: dict[str, str] = {}
    waiting = [name]
    while waiting:
        file = waiting.pop()
        if file not in known and file != SHARED:
            text = (kernels_folder() / file).read_text()
            waiting += _INCLUDE.findall(text)
            known[file] = " ".join(_COMMENT.sub(" ", text).split())
    texts = [f"{file}\0{known[file]}" for file in sorted(known)]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]


def read_record() -> dict[str, Any]:
    """What was written last; nothing if it was by no file."""
    return dict(json.loads(RECORD.read_text())) if RECORD.exists() else {"sources": {}}


def out_of_date() -> list[str]:
    """Sources that changed, are new, or are gone, since the record was written."""
    written = {name: one["hash"] for name, one in read_record()["sources"].items()}
    now = {name: source_hash(name) for name in source_names()}
    return sorted(name for name in {*written, *now} if written.get(name) != now.get(name))


def used_by(name: str, architecture: int) -> dict[str, dict[str, int]]:
    """Compile one source for one architecture: resources of its kernels."""
    options = ("--ptxas-options=-v",)
    module = compile_module(name, architecture, BindingsNvrtc(), extra_options=options)
    return resources(module.log)


def compile_source(name: str) -> dict[str, Any]:
    """Hash and resources of the kernels of one source, by architecture."""
    kernels: dict[str, dict[str, Any]] = {}
    for architecture in ARCHITECTURES:
        for kernel, used in used_by(name, architecture).items():
            kernels.setdefault(kernel, {})[f"sm_{architecture}"] = used
    return {"hash": source_hash(name), "kernels": kernels}


def written(name: str, architecture: int) -> dict[str, dict[str, int]]:
    """What the record says of a source and an architecture."""
    source = read_record()["sources"].get(name, {"kernels": {}})
    return {k: by.get(f"sm_{architecture}", {}) for k, by in source["kernels"].items()}


def renewed(name: str) -> dict[str, Any] | None:
    """A source's part of the record anew, if it is not as it was."""
    if name not in out_of_date() and used_by(name, OPTIMISED) == written(name, OPTIMISED):
        return None
    return compile_source(name)


def main() -> int:
    """Bring the record up to date; with --check, 1 if it is not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    changed = out_of_date()
    if args.check:
        print("out of date:", ", ".join(changed) or "nothing")
        return int(bool(changed))
    renew = compile_source if args.all else renewed
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        made = dict(zip(source_names(), pool.map(renew, source_names()), strict=True))
    sources = {**read_record()["sources"], **{name: one for name, one in made.items() if one}}
    document = {
        "what": "kernels compiled by NVRTC, fully optimised: a thread's registers, a block's "
        "static shared memory, bytes spilled (stores and loads) and stack",
        "nvrtc": ".".join(map(str, BindingsNvrtc().version())),
        "command": "python -m tests.benchmarks.kernels",
        "sources": {name: sources[name] for name in source_names()},
    }
    RECORD.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{RECORD}: renewed {sum(map(bool, made.values()))} of {len(sources)} sources")
    return 0


if __name__ == "__main__":
    sys.exit(main())
