"""From what a user passes (path, URL, filesystem) to a store."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from zarrgpu.errors import MissingDependencyError, StoreError
from zarrgpu.stores.base import Store
from zarrgpu.stores.fsspec import FsspecStore
from zarrgpu.stores.local import LocalStore

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+(://|::)")


def resolve_store(
    path: str | os.PathLike[str] | Store,
    *,
    filesystem: Any = None,
    storage_options: dict[str, Any] | None = None,
) -> Store:
    """Make the store rooted at `path`.

    Parameters
    ----------
    path : path, URL or Store
        A local path, any URL that fsspec knows (``s3://``, ``http://``, ``memory://``, chained
        ones too), or a store, returned as it is.
    filesystem : fsspec filesystem, optional
        Then `path` is a path within it.
    storage_options : dict, optional
        For fsspec, with a URL.

    Raises
    ------
    StoreError
        If the URL's protocol is unknown or its filesystem cannot be made.
    MissingDependencyError
        If the protocol's package is not installed.
    """
    if isinstance(path, Store):
        return path
    text = os.fspath(path)
    if filesystem is not None:
        return FsspecStore(filesystem, str(filesystem._strip_protocol(text)))
    if text.startswith("file://") and not storage_options:
        return LocalStore(_path_of_file_url(text))
    if not _URL.match(text):
        return LocalStore(Path(text).expanduser())
    return _fsspec_store(text, storage_options or {})


def _path_of_file_url(url: str) -> str:
    """Path of a ``file://`` URL (RFC 8089), as `pathlib.Path.as_uri` writes it."""
    path = url.removeprefix("file://")
    if path.lower().startswith("localhost/"):
        path = path[len("localhost") :]
    return unquote(path)


def _fsspec_store(url: str, storage_options: dict[str, Any]) -> FsspecStore:
    import fsspec

    try:
        filesystem, root = fsspec.url_to_fs(url, **storage_options)
    except ImportError as error:
        msg = f"{url!r} needs a package that is not installed: {error}; try zarrgpu[cloud]"
        raise MissingDependencyError(msg) from error
    except Exception as error:
        msg = f"cannot open a filesystem for {url!r}: {type(error).__name__}: {error}"
        raise StoreError(msg) from error
    return FsspecStore(filesystem, root)


def split_file(store: Store) -> tuple[Store, str] | None:
    """Split a store rooted at a file into the store of its folder and the file's key."""
    if isinstance(store, LocalStore):
        folder, name = os.path.split(store.root)
        return LocalStore(folder), name
    if isinstance(store, FsspecStore) and "/" in store.root:
        folder, name = store.root.rsplit("/", 1)
        return FsspecStore(store.filesystem, folder), name
    return None
