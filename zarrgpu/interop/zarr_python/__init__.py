"""zarr-python over zarrgpu's decoder: a codec pipeline that zarr reads through.

Switch it on with one line; nothing else changes::

    zarr.config.set({"codec_pipeline.path": "zarrgpu.interop.zarr_python.Pipeline"})

or ``ZARR_CODEC_PIPELINE__PATH=zarrgpu.interop.zarr_python.Pipeline`` in the environment. Reads of
what zarrgpu decodes run through `pipeline.Pipeline`; everything else, all writing included, is left
to zarr-python's own `BatchedCodecPipeline`, and counted in `Pipeline.stats`.

1. `decoder`: zarr-python's codec objects and chunk specification -> our codec chain, or a refusal.
2. `shard`: what a selection needs of a shard, and where its inner chunks lie.
3. `piece`: decode one chunk and place the part that is wanted.
4. `fetch`: bring the bytes, on the event loop or, for local files, on the decoding threads.
5. `device`: the same into the memory of a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zarrgpu.interop.zarr_python.pipeline import Pipeline

__all__ = ["Pipeline"]


def __getattr__(name: str) -> Any:
    """Make `Pipeline` when it is asked for: its base class is zarr-python's."""
    if name != "Pipeline":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        from zarrgpu.interop.zarr_python.pipeline import Pipeline
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "zarr":
            raise
        from zarrgpu.errors import MissingDependencyError

        msg = "zarr-python is not installed; pip install 'zarrgpu[zarr]'"
        raise MissingDependencyError(msg) from error
    return Pipeline
