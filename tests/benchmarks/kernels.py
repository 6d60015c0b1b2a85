"""Registers, shared memory and spills of every kernel on every architecture, as a record.

usage: python -m tests.benchmarks.kernels [--all] [--check]

Writes docs/benchmarks/kernels.json by NVRTC, fully optimised as on a user's machine; no GPU is
needed. Only sources that changed since, or headers of theirs, are compiled again; --all compiles
them all, --check only says which are out of date.
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
    """Of a .cu file and of all headers that it includes, by whatever way."""
    known: dict[str, str] = {}
    waiting = [name]
    while waiting:
        file = waiting.pop()
        if file not in known:
            known[file] = (kernels_folder() / file).read_text()
            waiting += _INCLUDE.findall(known[file])
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


def compile_source(name: str) -> dict[str, Any]:
    """Hash and resources of the kernels of one source, by architecture."""
    kernels: dict[str, dict[str, Any]] = {}
    for architecture in ARCHITECTURES:
        options = ("--ptxas-options=-v",)
        log = compile_module(name, architecture, BindingsNvrtc(), extra_options=options).log
        for kernel, used in resources(log).items():
            kernels.setdefault(kernel, {})[f"sm_{architecture}"] = used
    return {"hash": source_hash(name), "kernels": kernels}


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
    names = [name for name in source_names() if args.all or name in changed]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        made = dict(zip(names, pool.map(compile_source, names), strict=True))
    sources = {**read_record()["sources"], **made}
    document = {
        "what": "kernels compiled by NVRTC, fully optimised: a thread's registers, a block's "
        "static shared memory, bytes spilled (stores and loads) and stack",
        "nvrtc": ".".join(map(str, BindingsNvrtc().version())),
        "command": "python -m tests.benchmarks.kernels",
        "sources": {name: sources[name] for name in source_names()},
    }
    RECORD.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{RECORD}: compiled {len(made)} of {len(sources)} sources")
    return 0


if __name__ == "__main__":
    sys.exit(main())
