"""A plan in words: what will be fetched and decoded, where, and what it will hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zarrgpu.plan.tables import ReadPlan


def format_nbytes(nbytes: float) -> str:
    """Size for people.

    >>> format_nbytes(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TiB"


def explain(plan: ReadPlan, *, result: str, steps: Sequence[tuple[str, str]]) -> str:
    """Describe a plan in a few lines.

    Parameters
    ----------
    plan : ReadPlan
    result : str
        Shape, type and device of what is delivered.
    steps : sequence of (step, where)
        Where each stage runs and why.
    """
    request, chunks, reads = plan.request, plan.chunks, plan.reads
    whole = plan.num_unsized_reads
    fetched = format_nbytes(plan.fetch_nbytes)
    if whole:
        fetched = f"{whole} whole objects" + (f" + {fetched}" if plan.fetch_nbytes else "")
    pieces = len(plan.pieces)
    direct = f"{int(chunks.direct.sum())} straight into the result"
    shared = pieces / len(chunks) if len(chunks) else 0.0
    lines = [
        f"read {request.num_boxes} x {list(request.count)} from {len(plan.arrays)} array(s)",
        f"  fetch    {fetched} in {len(reads)} reads ({_distinct_objects(plan)} objects)",
        f"  decode   {len(chunks)} chunks, {format_nbytes(plan.decoded_nbytes)} ({direct})",
        f"  gather   {pieces} pieces ({shared:.1f} per chunk), {len(plan.fills)} fills",
        f"  deliver  {result}",
    ]
    width = max((len(step) for step, _ in steps), default=0)
    lines += [f"  {step:<{width}}  on {where}" for step, where in steps]
    return "\n".join(lines)


def _distinct_objects(plan: ReadPlan) -> int:
    pairs = np.stack([plan.reads.array.astype(np.int64), plan.reads.object_id])
    return int(np.unique(pairs, axis=1).shape[1])
