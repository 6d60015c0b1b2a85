"""`Group`: a Zarr group, its attributes and its members."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from zarrgpu.errors import NodeNotFoundError
from zarrgpu.formats.group import GroupSpec
from zarrgpu.stores.base import Store

Opener = Callable[[Store, str], Any]


class Group:
    """A Zarr group. Members are opened when they are asked for.

    Parameters
    ----------
    store : Store
    path : str
        Of the group within the store.
    spec : GroupSpec
    opener : callable
        Opens the node at a path of the store.
    """

    def __init__(self, store: Store, path: str, spec: GroupSpec, opener: Opener) -> None:
        self.store = store
        self.path = path
        self.spec = spec
        self._open = opener

    def __repr__(self) -> str:
        return f"<zarrgpu.Group {self.spec.source!r} (Zarr v{self.spec.zarr_format})>"

    @property
    def attrs(self) -> Mapping[str, Any]:
        """User attributes."""
        return self.spec.attributes

    def __getitem__(self, path: str) -> Any:
        """Open the array, group or slide at `path` below this group."""
        return self._open(self.store, _join(self.path, path))

    def __contains__(self, path: str) -> bool:
        try:
            self[path]
        except NodeNotFoundError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> list[str]:
        """Names of the direct members, sorted.

        From consolidated metadata where the group has it, otherwise by listing the store.
        """
        if self.spec.consolidated is not None:
            return sorted({name.split("/", 1)[0] for name in self.spec.consolidated})
        names = self.store.list_dir(self.path)
        return [name for name in names if not name.startswith(".") and self._is_node(name)]

    def members(self) -> dict[str, Any]:
        """Open all direct members: name to array, group or slide."""
        return {name: self[name] for name in self.keys()}

    def _is_node(self, name: str) -> bool:
        documents = ("zarr.json",) if self.spec.zarr_format == 3 else (".zarray", ".zgroup")
        base = _join(self.path, name)
        return any(self.store.size(f"{base}/{document}") is not None for document in documents)


def _join(base: str, path: str) -> str:
    return "/".join(part for part in (base, path.strip("/")) if part)
