"""`Hierarchy`: which nodes a store holds, and what their metadata says.

A node is read from its own documents, ``zarr.json`` (v3) before ``.zarray`` and ``.zgroup`` (v2);
below a group in the group's own format first, so that a v3 node costs one request and a v2 node two
or three. Where a group carries consolidated metadata, nothing below it is asked of the store: what
is not in there does not exist (zarr-python's rule). Otherwise members are found by listing, a level
of the hierarchy at a time, and their documents are fetched with as many requests in flight as the
store likes. A folder without a document of its own is no node, in v2 too.

A member that cannot be read is reported, not fatal: it comes back as an `UnreadableNode`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from zarrgpu.chunk_cache import ChunkCache
from zarrgpu.devices.host import run_threads
from zarrgpu.errors import MetadataError, NodeNotFoundError, StoreError, ZarrGPUError
from zarrgpu.formats import zarr_v2, zarr_v3
from zarrgpu.formats.consolidated import parse_zmetadata, path_problem, without_consolidated
from zarrgpu.formats.document import Document
from zarrgpu.formats.group import METADATA_NAMES, GroupSpec
from zarrgpu.model import ArraySpec, ByteArray
from zarrgpu.stores.base import MAX_DOCUMENT_NBYTES, Store

NodeSpec: TypeAlias = ArraySpec | GroupSpec

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class UnreadableNode:
    """A member of a group that is there but cannot be opened.

    Attributes
    ----------
    path : str
        Within the store.
    error : ZarrGPUError
        What opening it raises.
    """

    path: str
    error: ZarrGPUError

    def __repr__(self) -> str:
        return f"<zarrgpu.UnreadableNode {self.path!r}: {type(self.error).__name__}: {self.error}>"


@dataclass(frozen=True, slots=True)
class Members:
    """Nodes below a group.

    Attributes
    ----------
    nodes : mapping of str to (ArraySpec, GroupSpec or UnreadableNode)
        Path below the group -> what is there, parents before their members, siblings by name.
    truncated : bool
        Whether there may be more than were asked for.
    """

    nodes: Mapping[str, NodeSpec | UnreadableNode]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The nodes of a store.

    Parameters
    ----------
    store : Store
    use_consolidated : bool or None
        None uses consolidated metadata where there is any, True demands it of the node that is
        opened first, False never looks at it.
    cache : ChunkCache or None
        For the arrays that are opened.
    """

    store: Store
    use_consolidated: bool | None = None
    cache: ChunkCache | None = None

    def root(self, path: str) -> NodeSpec | None:
        """Read the node that a user opens at `path`, or None if there is none."""
        path = normalise_path(path)
        spec = self._read_v3(path) or self._read_v2_root(path)
        if self.use_consolidated and isinstance(spec, GroupSpec) and spec.consolidated is None:
            message = "use_consolidated=True, and the group has no consolidated metadata"
            raise MetadataError(message, source=spec.source, kind="missing")
        return spec

    def child(self, path: str, group: GroupSpec, relative: str) -> NodeSpec | None:
        """Read the node at `relative` below the group at `path`, or None if there is none."""
        node_path = join(path, relative)
        if group.consolidated is not None:
            return self._read_consolidated(node_path, group, relative)
        if group.zarr_format == 3:
            return self._read_v3(node_path) or self._read_v2(node_path)
        return self._read_v2(node_path) or self._read_v3(node_path)

    def members(
        self,
        path: str,
        group: GroupSpec,
        *,
        max_depth: int | None = 0,
        max_nodes: int | None = None,
    ) -> Members:
        """Find the nodes below the group at `path`.

        Parameters
        ----------
        path : str
        group : GroupSpec
        max_depth : int or None
            0 for the group's own members, None for all below it.
        max_nodes : int, optional
            Stop after this many.

        Raises
        ------
        StoreError
            If the group's folder cannot be listed.
        """
        found: dict[str, NodeSpec | UnreadableNode] = {}
        frontier = {"": group}
        depth, truncated = 0, False
        while frontier and not truncated and (max_depth is None or depth <= max_depth):
            listings = self._list_all(path, frontier, found)
            wanted = [
                (parent, join(parent, name))
                for parent, names in listings.items()
                for name in names
                if _may_be_node(name)
            ]
            if max_nodes is not None and len(wanted) > max_nodes - len(found):
                wanted, truncated = wanted[: max_nodes - len(found)], True
            level = self._read_all(path, frontier, wanted)
            if not truncated:
                self._check_listings(path, frontier, listings, level, found)
            found.update(level)
            frontier = {
                relative: spec for relative, spec in level.items() if isinstance(spec, GroupSpec)
            }
            depth += 1
        ordered = sorted(found, key=lambda relative: relative.split("/"))
        return Members({relative: found[relative] for relative in ordered}, truncated)

    def _list_all(
        self,
        path: str,
        groups: Mapping[str, GroupSpec],
        found: dict[str, NodeSpec | UnreadableNode],
    ) -> dict[str, list[str]]:
        """Names below each of `groups`; one that cannot be listed is replaced in `found`."""

        def listing(relative: str) -> tuple[str, list[str] | ZarrGPUError]:
            group = groups[relative]
            if group.consolidated is not None:
                return relative, group.consolidated.names()
            try:
                return relative, sorted(self.store.list_dir(join(path, relative)))
            except StoreError as error:
                return relative, _cannot_list(group, f": {error}")

        listings = {}
        for relative, names in self._threads(listing, list(groups)):
            if isinstance(names, list):
                listings[relative] = names
            elif relative:
                found[relative] = UnreadableNode(join(path, relative), names)
            else:
                raise names
        return dict(sorted(listings.items()))

    def _read_all(
        self, path: str, groups: Mapping[str, GroupSpec], wanted: Sequence[tuple[str, str]]
    ) -> dict[str, NodeSpec | UnreadableNode]:
        """Read the nodes among `wanted`, pairs of a group and a path below `path`."""

        def read(item: tuple[str, str]) -> tuple[str, NodeSpec | UnreadableNode | None]:
            parent, relative = item
            name = relative.rpartition("/")[2]
            try:
                return relative, self.child(join(path, parent), groups[parent], name)
            except ZarrGPUError as error:
                return relative, UnreadableNode(join(path, relative), error)

        nodes = self._threads(read, wanted)
        return {relative: node for relative, node in nodes if node is not None}

    def _check_listings(
        self,
        path: str,
        groups: Mapping[str, GroupSpec],
        listings: Mapping[str, Sequence[str]],
        level: Mapping[str, object],
        found: dict[str, NodeSpec | UnreadableNode],
    ) -> None:
        """Refuse empty listings that miss the group's own document: http servers give such."""
        parents = {relative.rpartition("/")[0] for relative in level}
        for relative, names in listings.items():
            group = groups[relative]
            own = "zarr.json" if group.zarr_format == 3 else ".zgroup"
            if group.consolidated is not None or relative in parents or own in names:
                continue
            error = _cannot_list(group, f": its listing lacks the group's own {own}")
            if not relative:
                raise error
            found[relative] = UnreadableNode(join(path, relative), error)

    def _get(self, path: str, name: str) -> ByteArray | None:
        return self.store.get(join(path, name), max_nbytes=MAX_DOCUMENT_NBYTES)

    def _read_v3(self, path: str) -> NodeSpec | None:
        data = self._get(path, "zarr.json")
        if data is None:
            return None
        document = Document.parse(data.tobytes(), self._where(path))
        if self.use_consolidated is False:
            document = without_consolidated(document)
        return zarr_v3.parse_node(document, path)

    def _read_v2(self, path: str) -> NodeSpec | None:
        for name in (".zarray", ".zgroup"):
            data = self._get(path, name)
            if data is not None:
                return self._parse_v2(path, name, data, self._get(path, ".zattrs"))
        return None

    def _read_v2_root(self, path: str) -> NodeSpec | None:
        """Read a v2 node in one round trip, its consolidated metadata with it."""
        names = [".zarray", ".zgroup", ".zattrs"]
        if self.use_consolidated is not False:
            names.append(".zmetadata")
        documents = dict(self._threads(lambda name: (name, self._get(path, name)), names))
        for name in (".zarray", ".zgroup"):
            data = documents[name]
            if data is None:
                continue
            spec = self._parse_v2(path, name, data, documents[".zattrs"])
            consolidated = documents.get(".zmetadata")
            if isinstance(spec, GroupSpec) and consolidated is not None:
                where = f"{self._where(path)}/.zmetadata"
                document = Document.parse(consolidated.tobytes(), where)
                spec = replace(spec, consolidated=parse_zmetadata(document))
            return spec
        return None

    def _parse_v2(
        self, path: str, name: str, data: ByteArray, attributes_data: ByteArray | None
    ) -> NodeSpec:
        where = self._where(path)
        document = Document.parse(data.tobytes(), where)
        attributes = (
            {}
            if attributes_data is None
            else Document.parse(attributes_data.tobytes(), f"{where}/.zattrs").value
        )
        if name == ".zarray":
            return zarr_v2.parse_array(document, attributes, path)
        return zarr_v2.parse_group(document, attributes)

    def _read_consolidated(self, path: str, group: GroupSpec, relative: str) -> NodeSpec | None:
        assert group.consolidated is not None
        if relative not in group.consolidated:
            return None
        member = Document(self._where(path), {}).child(
            "consolidated_metadata", group.consolidated[relative]
        )
        if member.value.get("zarr_format") != 2:
            spec = zarr_v3.parse_node(without_consolidated(member), path)
        elif "shape" in member.value:
            spec = zarr_v2.parse_array(member, member.attributes("attributes"), path)
        else:
            spec = zarr_v2.parse_group(member, member.attributes("attributes"))
        if isinstance(spec, GroupSpec):
            spec = replace(spec, consolidated=group.consolidated.below(relative))
        return spec

    def _where(self, path: str) -> str:
        return f"{self.store.url}/{path}" if path else self.store.url

    def _threads(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        return run_threads(work, items, max(1, self.store.io_concurrency))


def normalise_path(path: str) -> str:
    """Give `path` without superfluous slashes; refuse one that no node can have.

    Backslashes count as slashes, as in zarr-python.

    >>> normalise_path("/a//b/")
    'a/b'
    """
    parts = [part for part in path.replace("\\", "/").split("/") if part]
    normal = "/".join(parts)
    problem = path_problem(normal) if parts else None
    if problem is not None:
        msg = f"{path!r} is no path of a node: {problem}"
        raise NodeNotFoundError(msg)
    return normal


def join(base: str, path: str) -> str:
    """Join two paths, either of which may be empty."""
    return f"{base}/{path}" if base and path else base or path


def _may_be_node(name: str) -> bool:
    return name not in METADATA_NAMES and "\\" not in name and path_problem(name) is None


def _cannot_list(group: GroupSpec, reason: str) -> StoreError:
    msg = (
        f"{group.source!r}: the members of this group cannot be listed{reason}; open them by "
        "path, group['a/b'], or consolidate the metadata (zarr.consolidate_metadata)"
    )
    return StoreError(msg)
