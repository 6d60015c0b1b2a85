"""Changed streams by the thousand, each codec in a process of its own, so that none ends the run.

usage: python -m tests.gpu.mutations OUT.json [--rehearse] [--seconds N] [--jobs N]
       python -m tests.gpu.mutations --codec NAME --seed N    one batch again, in this process

Every chunk of a batch is changed in its own way; the device must give what the host gives, pixels
or an error. Of lossy images it is only counted how many differ, as decoders fill what they lost in
ways of their own. A process that dies, by a fault of the card or of a library, is told with the
seed that did it. Of each library format there is also a run *without* the checks that are made
before a launch: what the library does then is noted, and is no failure of ours.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import zarrgpu
from tests.gpu.devices import open_device, same, to_host
from tests.test_cuda_corruption import FUZZED, N_ELEMENTS, both, change
from tests.zarr_cases import CHAINS, MemoryStore, Recipe, encode, values
from zarrgpu.devices.cuda import CudaDevice

ROOT = Path(__file__).resolve().parents[2]
MAX_DIFFERENCE = 3
"""Of decoders that round as they like, each within its standard."""

DTYPES = ("u2", "f8", "u1", "i4")

TIFF = ("lzw", "packbits", "deflate", "none")
"""Compressions of TIFFs, by tifffile's names; with and without predictor 2 in turn."""

SLIDES = ("jpeg-rgb", "jpeg-420", "j2k-rgb", "j2k-ycbcr")
"""Kinds of tiles of `synthetic_slides`."""

UNCHECKED = ("zstd", "zlib", "gzip", "blosc-zstd-shuffle", "blosc-zlib-shuffle")
"""Chains whose streams the library gets unchecked too, in runs that may fail."""


def names() -> list[str]:
    """Every run, what trusts its input most first."""
    chains = sorted(FUZZED, key=lambda name: "zstd" not in name)
    runs = [*chains, *(f"tiff {name}" for name in TIFF), *(f"slide {name}" for name in SLIDES)]
    runs += [f"unchecked {name}" for name in UNCHECKED]
    assert len(set(runs)) == len(runs)
    return runs


Counts = dict[str, int]


def batch(name: str, device: CudaDevice, seed: int, n: int) -> Counts:
    """Read `n` changed chunks on both, which must agree: how many there were, and were readable."""
    rng = np.random.default_rng(seed)
    if name.startswith("tiff "):
        return _tiff(name.removeprefix("tiff "), device, rng, n)
    if name.startswith("slide "):
        return _slide(name.removeprefix("slide "), device, rng, n)
    dtype = DTYPES[seed % len(DTYPES)]
    data = values((n, N_ELEMENTS), dtype, seed)
    recipe = Recipe(chunks=(1, N_ELEMENTS), codecs=CHAINS[name.removeprefix("unchecked ")])
    store = MemoryStore(encode(data, recipe))
    for row in range(n):
        store.objects[f"c/{row}/0"] = change(store.objects[f"c/{row}/0"], rng)
    ok = both(store, device)
    return {"chunks": len(ok), "readable": sum(ok)}


def _tiff(name: str, device: CudaDevice, rng: np.random.Generator, n: int) -> Counts:
    """Strips of a TIFF of one row each, changed in place."""
    from tests.tiff_arrays import page_array, segments, write
    from zarrgpu.errors import DataError

    predictor = name in ("lzw", "deflate") and bool(rng.integers(2))
    image = np.repeat(rng.integers(0, 255, (n, N_ELEMENTS // 4), np.uint8), 4, axis=1)
    options: dict[str, Any] = (
        {} if name == "none" else {"compression": name, "predictor": predictor}
    )
    raw = bytearray(write(image, rowsperstrip=1, **options))
    for at, nbytes in segments(bytes(raw)):
        changed = change(bytes(raw[at : at + nbytes]), rng)[:nbytes]
        raw[at : at + len(changed)] = changed
    array = page_array(bytes(raw))
    readable = 0
    for row in range(n):
        results = []
        for where in ("cpu", device):
            try:
                results.append(array.read(row, device=where))
            except DataError as error:
                results.append(str(error))
        failed = [isinstance(result, str) for result in results]
        assert failed[0] == failed[1], (row, results)
        if failed[0]:
            assert results[0] == results[1]
        else:
            readable += 1
            same(results[1], results[0], device=device)
    return {"chunks": n, "readable": readable}


def _slide(kind: str, device: CudaDevice, rng: np.random.Generator, n: int) -> Counts:
    """Tiles of a slide, changed in place and read one a patch."""
    from tests.synthetic_slides import SlideRecipe, make_svs
    from tests.tiff_arrays import segments

    across = max(2, int(n**0.5))
    side = 64 * across
    recipe = SlideRecipe(kind=kind, height=side, width=side, n_levels=1, associated=False)
    raw = bytearray(make_svs(recipe))
    for at, nbytes in segments(bytes(raw)):
        changed = change(bytes(raw[at : at + nbytes]), rng)[:nbytes]
        raw[at : at + len(changed)] = changed
    with tempfile.NamedTemporaryFile(suffix=".svs", delete=False) as file:
        file.write(raw)
    path = Path(file.name)
    try:
        return _tiles(zarrgpu.open_slide(path), across, device)
    finally:
        path.unlink()


def _tiles(slide: zarrgpu.Slide, across: int, device: CudaDevice) -> Counts:
    corners = np.arange(across) * 64
    locations = np.stack(np.meshgrid(corners, corners), axis=-1).reshape(-1, 2)
    read = {"level": 0, "size": (64, 64), "on_error": "mask"}
    wanted, fine = slide.read_regions(locations, device="cpu", **read)
    got, ok = slide.read_regions(locations, device=device, **read)
    got, ok, both_fine = to_host(got), np.asarray(ok), np.asarray(ok) & fine
    far = np.abs(got.astype(np.int16) - wanted).reshape(len(ok), -1).max(axis=1) > MAX_DIFFERENCE
    return {
        "chunks": len(ok), "readable": int(ok.sum()),
        "read here and not by the host, or the other way": int((ok != fine).sum()),
        "differ": int((both_fine & far).sum()),
    }  # fmt: skip


def unchecked() -> None:
    """Hand streams to the library whatever their blocks say; headers must still be there."""

    def frames(payload: Any, offset: Any, nbytes: Any, decoded: Any, **_: Any) -> Any:
        return nbytes >= 6

    def deflate(payload: Any, source: Any, nbytes: Any, decoded: Any, among: Any) -> Any:
        return among & (decoded > 0)

    for module, name, check in (
        ("device_streams", "frames_valid", frames), ("blosc_streams", "frames_valid", frames),
        ("deflate_headers", "_plausible", deflate),
    ):  # fmt: skip
        mock.patch(f"zarrgpu.codecs.{module}.{name}", check).start()


def work(name: str, seed: int, seconds: float, n: int, *, rehearse: bool, rounds: int) -> None:
    """Batch after batch; a line of JSON before and after each, for whoever waits."""
    device = open_device("emulated" if rehearse else "cuda")
    if name.startswith("unchecked"):
        unchecked()
    end, counts = time.monotonic() + seconds, Counter[str]()
    for number in range(seed, seed + rounds):
        print(json.dumps({"seed": number}), flush=True)
        counts.update(batch(name, device, number, n))
        print(json.dumps(counts), flush=True)
        if time.monotonic() > end:
            return


def watch(name: str, seconds: float, options: list[str]) -> dict[str, Any]:
    """Run one codec in a process, and tell how it went."""
    command = [sys.executable, "-m", "tests.gpu.mutations", "--codec", name]
    command += ["--seconds", str(seconds), *options]
    died = ""
    patience = 400 if "--rehearse" in options else 30
    try:
        ran = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + patience,
        )
        out, errors, code = ran.stdout, ran.stderr, ran.returncode
    except subprocess.TimeoutExpired as stopped:
        out = (stopped.stdout or b"").decode()
        errors, code, died = (stopped.stderr or b"").decode(), -1, "hangs"
    found: dict[str, Any] = {"chunks": 0, "readable": 0}
    for line in out.splitlines():
        found |= json.loads(line)
    if code:
        died = died or (f"signal {-code}" if code < 0 else f"exit {code}")
        found |= {"died": died, "said": errors[-1500:]}
    return found


def run_all(
    seconds: float, jobs: int, *, rehearse: bool, save: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Every codec, `jobs` at a time, within about `seconds` in all; `save` after each."""
    runs = names()
    options = []
    if rehearse:
        runs, options = ["slide jpeg-rgb", "unchecked zstd"], ["--rehearse"]
    each = max(1.0, seconds * jobs / len(runs) - 4)  # a process takes a few seconds to begin
    found: dict[str, Any] = {name: {"died": "not run: no time left"} for name in runs}
    lock = threading.Lock()

    def one(name: str) -> None:
        result = watch(name, each, options)
        with lock:
            found[name] = result
            save(found)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, runs))
    return found


def main() -> int:
    """Write what happened; 1 if a codec died or was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--codec")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seconds", type=float, default=50)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--rehearse", action="store_true")
    args = parser.parse_args()
    if args.codec:
        n = 12 if args.rehearse else 150
        rounds = 1 if args.rehearse or args.seed is not None else 1 << 30
        work(args.codec, args.seed or 0, args.seconds, n, rehearse=args.rehearse, rounds=rounds)
        return 0

    def save(found: dict[str, Any]) -> None:
        document = {"what": __doc__.splitlines()[0], "rehearsal": args.rehearse, "runs": found}
        args.out.write_text(json.dumps(document, indent=1) + "\n")

    found = run_all(args.seconds, args.jobs, rehearse=args.rehearse, save=save)
    bad = [name for name, run in found.items() if "died" in run]
    for name, run in found.items():
        said = f"{run['chunks']} chunks, {run['readable']} readable"
        print(f"{name:28} {said}{', DIED: ' + run['died'] if 'died' in run else ''}")
    return int(any(not name.startswith("unchecked") for name in bad))


if __name__ == "__main__":
    sys.exit(main())
