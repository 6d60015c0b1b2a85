"""The targets for a GPU (design, section 10) beside what a run measured.

usage: python -m tests.gpu.targets [BENCH.json]

A figure is the worst of the cases that a target is about. Without a file, or where a part did not
run, it is 'not run'; a rehearsal on the emulated device measures nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOT_RUN = "not run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to be reached.

    Attributes
    ----------
    work, target : str
        For people.
    least : float
    unit : str
    figures : callable
        Takes the file; gives (case, figure) pairs.
    """

    work: str
    target: str
    least: float
    unit: str
    figures: Callable[[dict[str, Any]], Iterator[tuple[str, float]]]


def _cases(bench: dict[str, Any], *parts: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in parts:
        for name, case in bench.get("parts", {}).get(part, {}).items():
            if isinstance(case, dict) and not {"failed", "not measured"} & case.keys():
                yield name, case


def _decode(bench: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, case in _cases(bench, "zarr", "sweep"):
        share = case["zarrgpu"].get("decode stage over nvCOMP alone")
        if share is not None:
            yield name, share


def _gather(bench: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, case in _cases(bench, "zarr", "sweep"):
        for what, timed in case["zarrgpu"]["patches"].items():
            if what.startswith("gather"):
                yield f"{name}: {what}", timed["share_of_copy_bandwidth"]


def _patches(bench: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, case in _cases(bench, "zarr"):
        yield name, case["zarrgpu"]["patches, page cache"]["GB_per_s"]


def _over_peers(bench: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, case in _cases(bench, "zarr"):
        rates = [
            peer["patches + copy"]["GB_per_s"]
            for peer in case.get("peers", {}).values()
            if "patches + copy" in peer
        ]
        if rates:
            ours = case["zarrgpu"]["patches, page cache"]["GB_per_s"]
            yield name, round(ours / max(rates), 2)


def _slides(bench: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, case in _cases(bench, "slides"):
        if name == "SVS, JPEG":
            yield f"{name}, one batch", case["dense"]["one batch"]["patches_per_s"]


TARGETS = (
    Target(
        work="decode stage", target=">= 90 % of nvCOMP's own rate on the same chunks", least=0.9,
        unit="of nvCOMP", figures=_decode,
    ),
    Target(
        work="gather", target=">= 60 % of the card's copy bandwidth", least=0.6, unit="of the copy",
        figures=_gather,
    ),
    Target(
        work="zstd or Blosc Zarr, page cache to patch batch", target=">= 20 GB/s on an H200",
        least=20, unit="GB/s", figures=_patches,
    ),
    Target(
        work="the same, beside the best CPU peer on all cores + one pinned copy", target=">= 5 x",
        least=5, unit="x", figures=_over_peers,
    ),
    Target(
        work="SVS JPEG patches, 256 px", target=">= 20,000 a second", least=20_000,
        unit="patches/s", figures=_slides,
    ),
)  # fmt: skip


def table(bench: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A row for each target: work, target, figure, unit, case, met (None if not run)."""
    measured = bench if bench and not bench.get("rehearsal") else {}
    rows = []
    for target in TARGETS:
        found = sorted((figure, case) for case, figure in target.figures(measured))
        figure, case = found[0] if found else (None, None)
        rows.append(
            {
                "work": target.work, "target": target.target,
                "figure": NOT_RUN if figure is None else figure, "unit": target.unit,
                "worst_case": case, "best": found[-1][0] if found else None,
                "met": None if figure is None else figure >= target.least,
            }
        )  # fmt: skip
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table, as documents have it."""
    lines = ["| work | target | figure | met |", "|---|---|---|---|"]
    for row in rows:
        met = {None: "-", True: "yes", False: "no"}[row["met"]]
        figure = row["figure"] if row["met"] is None else f"{row['figure']:g} {row['unit']}"
        lines.append(f"| {row['work']} | {row['target']} | {figure} | {met} |")
    return "\n".join(lines)


def main() -> int:
    """Print the table; write it into the file that it is of."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    bench = json.loads(path.read_text()) if path is not None and path.exists() else None
    rows = table(bench)
    print(markdown(rows))
    if path is not None and bench is not None:
        path.write_text(json.dumps({**bench, "targets": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
