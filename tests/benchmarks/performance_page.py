"""Write the numbers of docs/performance.md, all of them from the JSONs of docs/benchmarks.

usage: python -m tests.benchmarks.performance_page [--check]

Each is between a pair of comments that names it. --check writes nothing, and says whether the page
is what the JSONs give.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.gpu import targets

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "performance.md"
NOT_RUN = targets.NOT_RUN
_UNCODED = 0.2
"""Uncompressed arrays: reading bytes is all that there is."""


def load(name: str) -> dict[str, Any] | None:
    """A result, if it was measured."""
    path = ROOT / "docs" / "benchmarks" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def planning() -> str:
    """Range of the medians."""
    found = load("planning")
    if found is None:
        return f"Planning: {NOT_RUN}."
    times = [case["median_ms"] for case in found["results"].values()]
    return (
        "1,024 random 256-px patches of a 100,000 x 100,000 image take "
        f"{min(times):.1f} to {max(times):.1f} ms to plan (`planning.json`)."
    )


def checks() -> str:
    """Milliseconds by codec and chunk size."""
    found = load("stream_checks")
    if found is None:
        return f"Not measured yet: {NOT_RUN}."
    sizes = list(dict.fromkeys(result["chunk"] for result in found["results"]))
    codecs = list(dict.fromkeys(result["codec"] for result in found["results"]))
    times = {(r["codec"], r["chunk"]): r["median_ms"] for r in found["results"]}
    lines = [f"| codec | {' | '.join(sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    lines += [
        f"| {codec} | {' | '.join(f'{times[codec, size]:.1f} ms' for size in sizes)} |"
        for codec in codecs
    ]
    return "\n".join(lines)


def kernels() -> str:
    """What all kernels have in common."""
    found = load("kernels")
    if found is None:
        return f"Not compiled yet: {NOT_RUN}."
    used = [
        (name, by)
        for source in found["sources"].values()
        for name, architectures in source["kernels"].items()
        for by in architectures.values()
    ]
    most = max(used, key=lambda one: one[1]["registers"])
    shared = sorted({name for name, by in used if by["shared_bytes"]})
    spilling = sorted({name for name, by in used if by["spill_bytes"]})
    return (
        f"{len({name for name, _ in used})} kernels. Spills: {', '.join(spilling) or 'none'}. "
        f"Static shared memory: {', '.join(shared) or 'none'}. Most registers a thread: "
        f"{most[1]['registers']} (`{most[0]}`)."
    )


def cells(*modes: str, figure: str = "ratio_to_best_peer") -> list[float]:
    """A figure of all arrays that have it, in modes whose name matches."""
    results = (load("reads") or {"results": []})["results"]
    return [
        timed[figure]
        for result in results
        for mode, timed in result["modes"].items()
        if any(re.fullmatch(pattern, mode) for pattern in modes) and figure in timed
    ]


def coded(shares: list[float]) -> list[float]:
    """Without arrays that no codec takes time for."""
    return [share for share in shares if share > _UNCODED]


def slide_cells() -> list[float]:
    """Ratios to the best peer, of all slides; caches start cold."""
    results = (load("slides") or {"results": []})["results"]
    return [result["ratio_to_best_peer"]["cold"] for result in results]


def cpu_targets() -> str:
    """Targets of the CPU beside the lowest cell and the geometric mean."""
    rows: list[tuple[str, str, list[float], float]] = [
        ("random patches in one batch", "every cell >= 1.3 x the best peer, mean >= 1.8 x",
         cells(r"\d+ patches in one call"), 1.3),
        ("the same as 32 batches, one by one", "every cell >= 1.1 x",
         cells(r"\d+ patches in 32 calls"), 1.1),
        ("... with chunk caches", "every cell >= 1.1 x",
         cells(r"\d+ patches in 32 calls, cached"), 1.1),
        ("the same through `PatchLoader`", "every cell >= 3 x",
         cells(r"\d+ patches through PatchLoader"), 3),
        ("... of its floor: codec and writing the result alone", "-",
         cells(r"\d+ patches through PatchLoader", figure="share_of_floor"), math.inf),
        ("full reads", "every cell >= 1.0 x", cells("full read"), 1.0),
        ("... into `out`: of the codec alone", "every cell >= 0.9",
         coded(cells("full read", figure="codec_alone_to_into_out")), 0.9),
        ("SVS patches, one batch, caches start cold", "every cell >= 2 x",
         slide_cells(), 2),
    ]  # fmt: skip
    lines = ["| work | target | lowest cell | geometric mean | met |", "|---|---|---|---|---|"]
    for work, target, ratios, least in rows:
        if not ratios:
            lines.append(f"| {work} | {target} | {NOT_RUN} | | - |")
            continue
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        met = min(ratios) >= least and ("mean" not in target or mean >= 1.8)
        said = "-" if target == "-" else "yes" if met else "no"
        lines.append(f"| {work} | {target} | {min(ratios):.2f} | {mean:.2f} | {said} |")
    return "\n".join(lines)


def gpu_targets() -> str:
    """Targets of a GPU."""
    return targets.markdown(targets.table(load("gpu/bench")))


PARTS: dict[str, Callable[[], str]] = {
    "planning": planning, "checks": checks, "kernels": kernels, "cpu": cpu_targets,
    "gpu": gpu_targets,
}  # fmt: skip


def page(text: str, parts: Iterable[str] = PARTS) -> str:
    """Put what the JSONs give between the comments."""
    for name in parts:
        begin, end = f"<!-- {name}: from JSON -->", f"<!-- end {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        assert len(pattern.findall(text)) == 1, name
        content = f"{begin}\n{PARTS[name]()}\n{end}"
        text = pattern.sub(lambda _, content=content: content, text)
    return text


def main() -> int:
    """Write the page, or check it."""
    before = PAGE.read_text()
    after = page(before)
    if "--check" in sys.argv:
        print("up to date" if before == after else "out of date")
        return int(before != after)
    PAGE.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
