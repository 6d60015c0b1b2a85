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
from zarrgpu.stores.obstore import ObjectStore, is_obstore
from zarrgpu.stores.public import public_address, public_text
from zarrgpu.stores.retry import http_status
from zarrgpu.stores.zip import ZipStore

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+(://|::)")
_ARCHIVE = re.compile(r"(?<=[^/])\.(?:zip|ozx)(?=/|$)", re.IGNORECASE)
"""End of a path's component that may be a zip archive."""


def resolve_store(
    path: str | os.PathLike[str] | Store,
    *,
    filesystem: Any = None,
    storage_options: dict[str, Any] | None = None,
) -> Store:
    """Make the store rooted at `path`.

    Parameters
    ----------
    path : path, URL, Store or obstore store
        A local path, any URL that fsspec knows (``s3://``, ``http://``, ``memory://``, chained
        ones too), or a store, returned as it is. A component that ends in ``.zip`` or ``.ozx`` and
        is a file is entered (``x.zarr.zip/0``), as is an archive of any name by fsspec's
        ``zip://0::s3://bucket/x``.
    filesystem : fsspec filesystem or obstore store, optional
        Then `path` is a path within it.
    storage_options : dict, optional
        For fsspec, with a URL; in a chained one by protocol, as fsspec takes them.

    Raises
    ------
    StoreError
        If the URL's protocol is unknown or its filesystem cannot be made.
    MissingDependencyError
        If the protocol's package is not installed.
    """
    if isinstance(path, Store):
        return path
    if is_obstore(path):
        return ObjectStore(path)
    text = os.fsdecode(path)
    if is_obstore(filesystem):
        return _entered(ObjectStore(filesystem, text))
    if filesystem is not None:
        return _entered(FsspecStore(filesystem, str(filesystem._strip_protocol(text))))
    if text.startswith("zip://"):
        return _chained_zip(text, storage_options or {})
    if text.startswith("file://") and not storage_options:
        return _entered(LocalStore(_path_of_file_url(text)))
    if not _URL.match(text):
        return _entered(LocalStore(Path(text).expanduser()))
    return _entered(_fsspec_store(text, storage_options or {}))


def _chained_zip(url: str, storage_options: dict[str, Any]) -> ZipStore:
    """Make the store of ``zip://prefix::URL of the archive``."""
    first, _, archive = url.partition("::")
    if not archive:
        msg = f"{public_address(url)!r} names no archive; write zip://path/in/it::s3://bucket/x.zip"
        raise StoreError(msg)
    options = {name: value for name, value in storage_options.items() if name != "zip"}
    if archive.startswith("zip://"):
        outer: Store = _chained_zip(archive, options)
    elif _URL.match(archive) and not (archive.startswith("file://") and not options):
        outer = _fsspec_store(archive, options)
    else:
        path = _path_of_file_url(archive) if archive.startswith("file://") else archive
        outer = LocalStore(Path(path).expanduser())
    split = split_file(outer)
    if split is None:
        msg = f"{public_address(url)!r}: {public_address(archive)!r} is no file of a store"
        raise StoreError(msg)
    return ZipStore(*split, first.removeprefix("zip://"))


def _entered(store: LocalStore | FsspecStore | ObjectStore) -> Store:
    """Enter the first zip archive on the way to a store's root, if there is one."""
    for match in _ARCHIVE.finditer(store.root):
        root, prefix = store.root[: match.end()], store.root[match.end() + 1 :]
        split = split_file(_at(store, root))
        # a folder may have such a name too
        try:
            size = None if split is None else split[0].size(split[1])
        except StoreError as error:
            if not prefix or http_status(error) != 403:
                raise
            continue  # a folder that shall not be listed
        if split is not None and size is not None:
            return ZipStore(*split, prefix, size=size)
    return store


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
        msg = (
            f"{public_address(url)!r} needs a package that is not installed: {error}; try "
            "zarrgpu[cloud]"
        )
        raise MissingDependencyError(msg) from error
    except Exception as error:
        said = f"{type(error).__name__}: {public_text(str(error))}"
        msg = f"cannot open a filesystem for {public_address(url)!r}: {said}"
        raise StoreError(msg) from error
    return FsspecStore(filesystem, root)


def _at(store: LocalStore | FsspecStore | ObjectStore, root: str) -> Store:
    """Give the same place, seen from another root."""
    if isinstance(store, LocalStore):
        return LocalStore(root)
    if isinstance(store, FsspecStore):
        return FsspecStore(store.filesystem, root, store.query)
    return ObjectStore(store.store, root)


def split_file(store: Store) -> tuple[Store, str] | None:
    """Split a store rooted at a file into the store of its folder and the file's key."""
    if isinstance(store, LocalStore):
        folder, name = os.path.split(store.root)
        return LocalStore(folder), name
    if isinstance(store, ZipStore):
        folder, _, name = store.prefix.rpartition("/")
        return (store.at(folder), name) if name else None
    if isinstance(store, FsspecStore) and "/" in store.root:
        folder, name = store.root.rsplit("/", 1)
        return FsspecStore(store.filesystem, folder, store.query), name
    if isinstance(store, ObjectStore) and store.root:
        folder, _, name = store.root.rpartition("/")
        return ObjectStore(store.store, folder), name
    return None
