"""Write what zarrgpu opens as a sharded OME-Zarr 0.5 pyramid.

::

    source.py      any slide or array as levels in OME-Zarr's axis order
    layout.py      chunks, shards and codec of a level
    levels.py      which levels are kept, and which are made
    labels.py      label images below an OME-Zarr image
    downsample.py  coarser levels by averaging
    metadata.py    OME-Zarr metadata, and what it has no place for
    jpeg_tiles.py  JPEG tiles taken over as they are
    progress.py    what is done already, and shown
    run.py         the work, shard by shard
"""

from zarrgpu.convert.run import convert
from zarrgpu.convert.settings import ConvertOptions

__all__ = ["ConvertOptions", "convert"]
