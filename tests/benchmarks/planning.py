"""How long planning takes: 1,024 random 256-px patches of a 100,000 x 100,000 x 3 array.

Target (docs/architecture.md): at most 2 ms, median, warm. Nothing is read; shard indexes are known.
"""

from __future__ import annotations

import numpy as np

from tests.benchmarks import harness
from zarrgpu.grids import KeyEncoding
from zarrgpu.model import ArraySpec, ChunkLocation, Manifest, ObjectPerChunk, Sharded
from zarrgpu.plan.locate import ShardIndexes, locate_chunks
from zarrgpu.plan.planner import build_plan, plan_touches
from zarrgpu.plan.request import ReadRequest
from zarrgpu.plan.tables import ReadPlan

SHAPE, CHUNK, SHARD = (100_000, 100_000, 3), (256, 256, 3), (2048, 2048, 3)
PATCHES, SIDE = 1024, 256


def array_spec(location: ChunkLocation) -> ArraySpec:
    """The array that is planned for, with its chunks in different places."""
    return ArraySpec(
        source="benchmark",
        shape=SHAPE,
        dtype=np.dtype("u1"),
        chunk_shape=CHUNK,
        fill_value=np.uint8(0),
        codecs=(),
        axis_order=(0, 1, 2),
        location=location,
        dimension_names=(None,) * 3,
    )


def plan_once(spec: ArraySpec, start: np.ndarray, indexes: ShardIndexes | None) -> ReadPlan:
    """All that planning does, from boxes to tables."""
    request = ReadRequest(
        arrays=(spec,),
        array_index=np.zeros(len(start), np.int32),
        start=start,
        count=(SIDE, SIDE, 3),
        step=(1, 1, 1),
    )
    touched = plan_touches(request)
    return build_plan(
        request,
        touched,
        [locate_chunks(spec, touch.chunk_id, indexes) for touch in touched],
        max_gap_bytes=16 << 10,
        max_coalesced_bytes=512 << 10,
        allow_direct=True,
    )


def main() -> None:
    """Measure and write docs/benchmarks/planning.json."""
    random = np.random.default_rng(0)
    start = np.zeros((PATCHES, 3), np.int64)
    start[:, :2] = random.integers(0, SHAPE[0] - SIDE, (PATCHES, 2))
    keys = KeyEncoding("default", "/")
    n_chunks = int(np.prod([-(-n // c) for n, c in zip(SHAPE, CHUNK, strict=True)]))
    n_shards = int(np.prod([-(-n // s) for n, s in zip(SHAPE, SHARD, strict=True)]))
    per_shard = int(np.prod([s // c for s, c in zip(SHARD, CHUNK, strict=True)]))
    sizes = np.full((n_shards, per_shard), 20_000, np.int64)
    indexes = ShardIndexes(
        np.arange(n_shards), np.tile(np.arange(per_shard) * 20_000, (n_shards, 1)), sizes
    )
    manifest = Manifest("slide.svs", np.arange(n_chunks) * 20_000, np.full(n_chunks, 19_000))
    cases = {
        "one object per chunk": (array_spec(ObjectPerChunk(keys)), None),
        "TIFF tiles": (array_spec(manifest), None),
        "shards of 64 chunks": (
            array_spec(Sharded(keys, SHARD, (), "little", 16 * per_shard, "end")),
            indexes,
        ),
    }
    results = {}
    for name, (spec, known) in cases.items():
        timed = harness.measure({name: lambda s=spec, k=known: plan_once(s, start, k)}, repeats=101)
        plan = plan_once(spec, start, known)
        results[name] = {
            **timed[name],
            "chunks": len(plan.chunks),
            "pieces": len(plan.pieces),
            "reads": len(plan.reads),
        }
        print(f"{name:22} {results[name]['median_ms']:.2f} ms")
    harness.write(
        "planning",
        {
            "what": f"plan {PATCHES} random {SIDE}-px patches of {SHAPE} uint8, chunks {CHUNK}",
            "target_ms": 2.0,
            "results": results,
        },
    )


if __name__ == "__main__":
    main()
