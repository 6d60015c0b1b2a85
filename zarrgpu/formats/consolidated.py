"""Consolidated metadata: the documents of a whole hierarchy in one.

Zarr v3 keeps it inside the group's ``zarr.json`` (core spec 3.1, ``consolidated_metadata``), v2 in
a ``.zmetadata`` beside ``.zgroup`` (a convention of zarr-python's). Both become one mapping, path
below the group -> document. The documents themselves are not looked into here: one that is wrong
spoils its own node only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zarrgpu.formats.document import Document, shown

_MEMBER = "consolidated_metadata"
_OPT_OUT = "open with use_consolidated=False to read each node's own metadata"
_MAX_PATH_LENGTH = 4096
_MAX_DEPTH = 128
"""Beyond what stores hold; a document of long paths would cost the square of its size."""


class Consolidated(Mapping[str, Any]):
    """Metadata documents of the nodes below a group; the parts of its subgroups share its memory.

    Parameters
    ----------
    nodes : mapping
        Path below the group that the metadata was found in -> document.
    """

    __slots__ = ("_base", "_children", "_nodes")

    def __init__(self, nodes: Mapping[str, Any]) -> None:
        self._nodes = nodes
        self._base = ""
        self._children = _children_of(nodes)

    def below(self, path: str) -> Consolidated:
        """Part of the subgroup at `path`."""
        part = Consolidated.__new__(Consolidated)
        part._nodes, part._children, part._base = self._nodes, self._children, self._join(path)
        return part

    def names(self) -> list[str]:
        """Names of the direct members, sorted."""
        names = self._children.get(self._base, ())
        return sorted(name for name in names if self._join(name) in self._nodes)

    def __getitem__(self, path: str) -> Any:
        return self._nodes[self._join(path)]

    def __iter__(self) -> Iterator[str]:
        stack = [""]
        while stack:
            path = stack.pop()
            for name in self._children.get(self._join(path), ()):
                below = f"{path}/{name}" if path else name
                stack.append(below)
                if self._join(below) in self._nodes:
                    yield below

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Consolidated({dict(self)!r})"

    def _join(self, path: str) -> str:
        return f"{self._base}/{path}" if self._base and path else self._base or path


def _children_of(nodes: Mapping[str, Any]) -> dict[str, set[str]]:
    """Path -> names of what lies directly below it, implicit folders too."""
    children: dict[str, set[str]] = {}
    for path in nodes:
        while path:
            parent, _, name = path.rpartition("/")
            names = children.setdefault(parent, set())
            if name in names:
                break
            names.add(name)
            path = parent
    return children


def path_problem(path: str) -> str | None:
    """Say why `path` (of a node within its hierarchy) cannot be one, or None if it can.

    Names follow the core spec 3.1, "Node names": not empty, not periods alone, not ``zarr.json``.

    >>> path_problem("a/b c")
    >>> path_problem("a/../b")
    "no node may be named '..'"
    """
    names = path.split("/")
    if len(path) > _MAX_PATH_LENGTH or len(names) > _MAX_DEPTH:
        return f"paths of up to {_MAX_PATH_LENGTH} characters and {_MAX_DEPTH} names are read"
    for name in names:
        if not name.strip("."):
            return f"no node may be named {name!r}"
        if name == "zarr.json":
            return "no node may be named 'zarr.json'"
        if "\0" in name:
            return "no node's name may hold a null character"
    return None


def without_consolidated(document: Document) -> Document:
    """Give the same document less its consolidated metadata."""
    if _MEMBER not in document.value:
        return document
    rest = {key: value for key, value in document.value.items() if key != _MEMBER}
    return Document(document.source, rest, document.location)


def parse_inline(document: Document) -> Consolidated | None:
    """Parse the consolidated metadata of a v3 group document, or None if it has none to use.

    A kind other than ``inline`` is passed over where it says ``"must_understand": false``.
    """
    value = document.value.get(_MEMBER)
    if value is None:
        return None
    inline = document.child(_MEMBER, value)
    kind = inline.value.get("kind")
    if kind != "inline":
        if inline.value.get("must_understand") is False:
            return None
        message = f"expected 'inline', got {shown(kind)}; {_OPT_OUT}"
        raise inline.fail(message, "kind", kind="unknown")
    nodes = inline.child("metadata", inline.require("metadata"))
    _check_paths(nodes)
    for path in nodes.value:
        parent = path.rpartition("/")[0]
        if parent and not _is_group(nodes.value, parent):
            message = f"{shown(parent)} is no group of the consolidated metadata; {_OPT_OUT}"
            raise nodes.fail(message, path, kind="missing")
    return Consolidated(nodes.value)


def parse_zmetadata(document: Document) -> Consolidated:
    """Parse a ``.zmetadata``. Groups that are only implied by their members' paths stay so."""
    version = document.value.get("zarr_consolidated_format", 1)
    if version != 1:
        message = f"expected 1, got {shown(version)}; {_OPT_OUT}"
        raise document.fail(message, "zarr_consolidated_format", kind="unknown")
    entries = document.child("metadata", document.require("metadata"))
    nodes: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    for key, value in entries.value.items():
        path, _, name = key.rpartition("/")
        if name == ".zattrs":
            attributes[path] = value
        elif path and (name == ".zarray" or (name == ".zgroup" and path not in nodes)):
            nodes[path] = value
    for path, value in nodes.items():
        if isinstance(value, Mapping):
            nodes[path] = {**value, "attributes": attributes.get(path, {})}
    _check_paths(Document(document.source, nodes, entries.location))
    return Consolidated(nodes)


def _check_paths(nodes: Document) -> None:
    for path in nodes.value:
        problem = path_problem(path)
        if problem is not None:
            raise nodes.fail(f"{problem}; {_OPT_OUT}", path)


def _is_group(nodes: Mapping[str, Any], path: str) -> bool:
    """Whether a group may be at `path`: what is wrong with it is said when it is read."""
    value = nodes.get(path, {"node_type": "array"})
    return not isinstance(value, Mapping) or value.get("node_type") != "array"
