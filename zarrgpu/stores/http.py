"""Requests of fsspec's http filesystem whose answer is cut off where it is larger than asked for.

A server may ignore ``Range`` and answer 200 with the whole object, and a compressed answer may
inflate to any size; fsspec's own ``cat_file`` takes all of it into memory.
"""

from __future__ import annotations

from typing import Any


def read_http(filesystem: Any, url: str, start: int | None, end: int | None) -> bytes | None:
    """Read a range by one request: at most one byte more than it has, which says "too large".

    Parameters
    ----------
    filesystem : fsspec filesystem
    url : str
    start, end : int or None
        As of ``cat_file``; a negative `start` without `end` asks for the last bytes. None for
        `start` asks for the whole object, of which what is beyond `end` is not read.

    Returns
    -------
    bytes or None
        None if the filesystem is not exactly fsspec's own.

    Raises
    ------
    FileNotFoundError
        If the server answers 404.
    ValueError
        If the server gave what is as long as the range, but is not the range.
    aiohttp.ClientError
        Whatever else fails.
    """
    from fsspec.asyn import sync
    from fsspec.implementations.http import HTTPFileSystem

    if type(filesystem) is not HTTPFileSystem:
        return None
    result: bytes = sync(filesystem.loop, _read, filesystem, url, start, end)
    return result


async def _read(filesystem: Any, url: str, start: int | None, end: int | None) -> bytes:
    options, limit = dict(filesystem.kwargs), end
    if start is not None:
        suffix = start < 0
        limit = -start if suffix else None if end is None else end - start
        wanted = f"bytes={start}" if suffix else f"bytes={start}-{'' if end is None else end - 1}"
        options["headers"] = {**(options.get("headers") or {}), "Range": wanted}
    session = await filesystem.set_session()
    parts, nbytes = [], 0
    async with session.get(filesystem.encode_url(url), **options) as response:
        filesystem._raise_not_found_for_status(response, url)
        async for part in response.content.iter_any():
            parts.append(part)
            nbytes += len(part)
            if limit is not None and nbytes > limit:
                break
        whole = response.status == 200 and "Content-Range" not in response.headers
    if whole and start is not None and start > 0 and limit is not None and nbytes <= limit:
        msg = f"the server ignores byte ranges: it gave {nbytes} bytes from the first on"
        raise ValueError(msg)
    data = b"".join(parts)
    return data if limit is None else data[: limit + 1]
