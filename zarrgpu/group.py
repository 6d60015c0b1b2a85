"""`Group`: a Zarr group, its attributes and the hierarchy below it, under zarr-python's names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from zarrgpu.array import Array
from zarrgpu.devices.host import run_threads
from zarrgpu.errors import NodeNotFoundError, StoreError, ZarrGPUError
from zarrgpu.formats.group import Dimension, GroupSpec
from zarrgpu.formats.nczarr import SCALAR
from zarrgpu.hierarchy import Hierarchy, NodeSpec, UnreadableNode, join, normalise_path
from zarrgpu.model import ArraySpec
from zarrgpu.stores.base import Store
from zarrgpu.tree import Tree, describe_node, draw_tree, printable

Node: TypeAlias = Any
"""`Array`, `Group`, `Slide` or whatever else `zarrgpu.open` gives; `UnreadableNode` in listings."""

MakeNode: TypeAlias = Callable[[Hierarchy, str, NodeSpec, Mapping[str, NodeSpec]], Node]


class Group:
    """A Zarr group. Members are opened when they are asked for. Made by `zarrgpu.open`.

    Where the group has consolidated metadata, nothing about its members is asked of the store.
    Otherwise the store is listed, each time anew. A member that cannot be read appears in listings
    as an `UnreadableNode`; asking for it by name raises its error.

    Parameters
    ----------
    hierarchy : Hierarchy
    path : str
        Of the group within the store.
    metadata : GroupSpec
    make : callable
        Makes the object for a node whose metadata was read.
    """

    def __init__(
        self, hierarchy: Hierarchy, path: str, metadata: GroupSpec, make: MakeNode
    ) -> None:
        self.hierarchy = hierarchy
        self.path = path
        self.metadata = metadata
        self._make = make

    def __repr__(self) -> str:
        return f"<zarrgpu.Group {self.metadata.source!r} (Zarr v{self.zarr_format})>"

    @property
    def store(self) -> Store:
        """Where the group is kept."""
        return self.hierarchy.store

    @property
    def name(self) -> str:
        """Path with a leading slash, as h5py has it."""
        return f"/{self.path}"

    @property
    def basename(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def attrs(self) -> Mapping[str, Any]:
        """User attributes."""
        return self.metadata.attributes

    @property
    def zarr_format(self) -> Literal[2, 3]:
        """Version of the format: 2 or 3."""
        return self.metadata.zarr_format

    @property
    def info(self) -> Tree:
        """Text: what the group's own metadata says."""
        consolidated = self.metadata.consolidated
        lines = [
            f"name          {printable(self.name)}",
            "type          group",
            f"zarr format   {self.zarr_format}",
            f"store         {self.store.url}",
            "consolidated  " + ("no" if consolidated is None else f"{len(consolidated)} nodes"),
        ]
        if self.attrs:
            lines.append(f"attributes    {', '.join(printable(key) for key in sorted(self.attrs))}")
        if self.metadata.dimensions:
            sizes = (
                f"{printable(name)} = {dimension.size}" + " (unlimited)" * dimension.unlimited
                for name, dimension in self.metadata.dimensions.items()
            )
            lines.append(f"dimensions    {', '.join(sizes)}")
        return Tree("\n".join(lines))

    def __getitem__(self, path: str) -> Node:
        """Open the array, group or slide at `path` below this group (``"a"``, ``"a/b"``).

        Raises
        ------
        NodeNotFoundError
            If nothing is there; also a KeyError.
        MetadataError, UnsupportedFormatError, UnsupportedCodecError, StoreError
            If it cannot be read.
        """
        relative = normalise_path(path)
        if not relative:
            return self
        spec = self.hierarchy.child(self.path, self.metadata, relative)
        if spec is None:
            msg = f"{self.metadata.source!r}: no Zarr array or group at {path!r}"
            if self.metadata.consolidated is not None:
                msg += " in the consolidated metadata; use_consolidated=False reads the store"
            raise NodeNotFoundError(msg)
        return self._make(self.hierarchy, join(self.path, relative), spec, {})

    def get(self, path: str, default: Any = None) -> Node:
        """Open the node at `path`, or give `default` if nothing is there."""
        try:
            return self[path]
        except NodeNotFoundError:
            return default

    def __contains__(self, path: object) -> bool:
        """Whether a node is at `path`, readable or not."""
        if not isinstance(path, str):
            return False
        try:
            relative = normalise_path(path)
            return self.hierarchy.child(self.path, self.metadata, relative) is not None
        except NodeNotFoundError:
            return False
        except StoreError:
            raise
        except ZarrGPUError:
            return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return self.nmembers()

    def __bool__(self) -> bool:
        """Always true: an empty group is a group, and the question costs no request."""
        return True

    def keys(self) -> list[str]:
        """Names of the direct members, sorted."""
        return list(self._members(0))

    def values(self) -> list[Node]:
        """Direct members, by name."""
        return [node for _, node in self.members()]

    def items(self) -> list[tuple[str, Node]]:
        """Names and direct members, by name."""
        return list(self.members())

    def nmembers(self, max_depth: int | None = 0) -> int:
        """Count the nodes below this group; `max_depth` as for `members`."""
        return len(self._members(max_depth))

    def members(self, max_depth: int | None = 0) -> tuple[tuple[str, Node], ...]:
        """Open the nodes below this group.

        Parameters
        ----------
        max_depth : int or None
            0 (default) for direct members, 1 for theirs too, None for the whole hierarchy.

        Returns
        -------
        tuple of (path below this group, node)
            Parents before their members, siblings by name. A node that cannot be opened is an
            `UnreadableNode`; what lies below it is still there.

        Raises
        ------
        StoreError
            If the store cannot list this group.
        ValueError
            If `max_depth` is negative.
        """
        return self._opened(self._members(max_depth))

    def groups(self) -> list[tuple[str, Node]]:
        """Names and direct members that are groups; images (`Slide`) are groups too.

        One that cannot be opened is an `UnreadableNode`.
        """
        return list(self._opened(self._members(0), GroupSpec))

    def group_keys(self) -> list[str]:
        """Names of the direct members that are groups."""
        return [name for name, spec in self._members(0).items() if isinstance(spec, GroupSpec)]

    def group_values(self) -> list[Node]:
        """Direct members that are groups."""
        return [node for _, node in self.groups()]

    def arrays(self) -> list[tuple[str, Node]]:
        """Names and direct members that are arrays.

        One that cannot be opened (its codec is unknown, say) is an `UnreadableNode`.
        """
        return list(self._opened(self._members(0), ArraySpec))

    def array_keys(self) -> list[str]:
        """Names of the direct members that are arrays."""
        return [name for name, spec in self._members(0).items() if isinstance(spec, ArraySpec)]

    def array_values(self) -> list[Node]:
        """Direct members that are arrays."""
        return [node for _, node in self.arrays()]

    def walk(self, max_depth: int | None = None) -> Iterator[tuple[str, list[str], list[str]]]:
        """Go through the hierarchy as `os.walk` goes through folders, top down.

        Yields
        ------
        path : str
            Of a group, below this one; empty for this one.
        groups, arrays : list of str
            Names of its members. Unreadable ones are in neither: see `members`.
        """
        found: dict[str, tuple[list[str], list[str]]] = {"": ([], [])}
        for path, spec in self._members(max_depth).items():
            parent, _, name = path.rpartition("/")
            if isinstance(spec, GroupSpec):
                found[parent][0].append(name)
                if max_depth is None or path.count("/") < max_depth:
                    found[path] = ([], [])
            elif isinstance(spec, ArraySpec):
                found[parent][1].append(name)
        for path, (groups, arrays) in found.items():
            yield path, groups, arrays

    def tree(self, max_depth: int | None = None, *, max_nodes: int = 500) -> Tree:
        """Draw the hierarchy below this group: shapes, types, chunks, shards and codecs.

        Parameters
        ----------
        max_depth : int or None
            As for `members`; default all.
        max_nodes : int
            Stop after this many nodes, and say so.

        Returns
        -------
        Tree
            A string whose ``repr`` is the drawing.
        """
        found = self.hierarchy.members(
            self.path, self.metadata, max_depth=_checked(max_depth), max_nodes=max_nodes
        )
        rows = [(path, describe_node(node)) for path, node in self._opened(found.nodes)]
        note = f"... there is more: tree(max_nodes={2 * max_nodes})" if found.truncated else ""
        return draw_tree(printable(self.name), rows, note=note)

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """Named dimensions of this group: name to size, and whether it is unlimited.

        Those that NCZarr declares here, and those that direct member arrays name and agree about
        (``dimension_names`` of v3, ``_ARRAY_DIMENSIONS`` of xarray).
        """
        named = {
            (name, size)
            for spec in self._members(0).values()
            if isinstance(spec, ArraySpec)
            for name, size in zip(spec.dimension_names, spec.shape, strict=True)
            if name not in (None, SCALAR)
        }
        sizes = Counter(name for name, _ in named)
        agreed = {name: Dimension(size) for name, size in sorted(named) if sizes[name] == 1}
        return {**agreed, **self.metadata.dimensions}

    def coordinates(self, array: Array | str) -> dict[str, Array]:
        """Coordinate arrays of an array below this group.

        A coordinate of dimension ``x`` is a one-dimensional array named ``x`` along ``x``, in the
        array's own group or the nearest one above it (netCDF's scope), up to this group.

        Parameters
        ----------
        array : Array or str
            An array opened from this group, or its path below it.

        Returns
        -------
        dict of dimension name to Array
            Of those dimensions that have one, in the array's order.
        """
        target = self[array] if isinstance(array, str) else array
        scope = target.path[len(self.path) :].strip("/").rpartition("/")[0]
        found = {}
        for name in target.dimension_names:
            coordinate = None if name is None else self._coordinate(scope, name)
            if name is not None and coordinate is not None:
                found[name] = coordinate
        return found

    def _coordinate(self, scope: str, name: str) -> Array | None:
        while True:
            node = self.get(join(scope, name))
            if isinstance(node, Array) and node.dimension_names == (name,):
                return node
            if not scope:
                return None
            scope = scope.rpartition("/")[0]

    def _members(self, max_depth: int | None) -> Mapping[str, NodeSpec | UnreadableNode]:
        max_depth = _checked(max_depth)
        return self.hierarchy.members(self.path, self.metadata, max_depth=max_depth).nodes

    def _opened(
        self, nodes: Mapping[str, NodeSpec | UnreadableNode], kind: type = object
    ) -> tuple[tuple[str, Node], ...]:
        """Make the objects of those nodes that are of a kind, in the order given."""
        known = {
            join(self.path, path): spec
            for path, spec in nodes.items()
            if not isinstance(spec, UnreadableNode)
        }

        def opened(path: str) -> tuple[str, Node]:
            spec = nodes[path]
            if isinstance(spec, UnreadableNode):
                return path, spec
            node_path = join(self.path, path)
            try:
                return path, self._make(self.hierarchy, node_path, spec, known)
            except ZarrGPUError as error:
                return path, UnreadableNode(node_path, error)

        wanted = [path for path, spec in nodes.items() if isinstance(spec, kind)]
        made = dict(run_threads(opened, wanted, max(1, self.store.io_concurrency)))
        return tuple((path, made[path]) for path in wanted)


def _checked(max_depth: int | None) -> int | None:
    if max_depth is not None and max_depth < 0:
        msg = f"max_depth must be None or at least 0, got {max_depth}"
        raise ValueError(msg)
    return max_depth
