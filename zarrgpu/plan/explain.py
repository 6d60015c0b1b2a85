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


def explain(
    plan: ReadPlan,
    *,
    result: str,
    holds: str,
    steps: Sequence[tuple[str, str]],
    launches: str = "",
) -> str:
    """Describe a plan in a few lines.

    Parameters
    ----------
    plan : ReadPlan
    result : str
        Shape, type and device of what is delivered.
    holds : str
        Memory that the read takes besides the result.
    steps : sequence of (step, where)
        Where each stage runs and why.
    launches : str
        Calls that a device is given; empty where there are none.
    """
    request, chunks = plan.request, plan.chunks
    decoded = f"{count(len(chunks), 'chunk')}, {format_nbytes(plan.decoded_nbytes)}"
    lines = [
        f"read {request.num_boxes} x {list(request.count)} from {count(len(plan.arrays), 'array')}",
        f"  fetch    {_fetched(plan)}",
        f"  decode   {decoded} ({int(chunks.direct.sum())} straight into the result)",
        f"  gather   {count(len(plan.pieces), 'piece')}, {count(len(plan.fills), 'fill')}",
        f"  deliver  {result}",
        f"  hold     {holds}",
        *([f"  launch   {launches}"] if launches else []),
    ]
    width = max((len(step) for step, _ in steps), default=0)
    lines += [f"  {step:<{width}}  on {where}" for step, where in steps]
    return "\n".join(lines)


def count(n: int, noun: str) -> str:
    """Number and noun.

    >>> count(1, "chunk"), count(2, "chunk")
    ('1 chunk', '2 chunks')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _fetched(plan: ReadPlan) -> str:
    """Bytes or whole objects, reads and objects."""
    whole = plan.num_unsized_reads
    parts = [format_nbytes(plan.fetch_nbytes)] if plan.fetch_nbytes or not whole else []
    if whole:
        parts.append(f"{count(whole, 'whole object')} of unknown size")
    pairs = np.stack([plan.reads.array.astype(np.int64), plan.reads.object_id])
    objects = int(np.unique(pairs, axis=1).shape[1])
    return f"{' + '.join(parts)} in {count(len(plan.reads), 'read')} of {count(objects, 'object')}"
