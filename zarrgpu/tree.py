"""Draw a hierarchy for the terminal: one line a node, boxes of text for the branches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zarrgpu.hierarchy import UnreadableNode

_MAX_ERROR_LENGTH = 160


class Tree(str):
    """Text that shows itself: ``repr`` is the text, so that a prompt prints the drawing."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def draw_tree(root: str, nodes: Iterable[tuple[str, str]], *, note: str = "") -> Tree:
    """Draw nodes below a root.

    Parameters
    ----------
    root : str
        First line.
    nodes : iterable of (path, text)
        Path below the root, parents before their members; `text` goes behind the node's name.
    note : str
        Last line, if any.

    >>> draw_tree("/", [("a", "group"), ("a/b", "4 x 4 uint8"), ("c", "group")])
    /
    ├── a  group
    │   └── b  4 x 4 uint8
    └── c  group
    """
    rows = list(nodes)
    last = {path.rpartition("/")[0]: path for path, _ in rows}
    lines = [root]
    for path, text in rows:
        parent, _, name = path.rpartition("/")
        parts = parent.split("/") if parent else []
        ancestors = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        stem = "".join(
            "    " if last[above.rpartition("/")[0]] == above else "│   " for above in ancestors
        )
        branch = "└── " if last[parent] == path else "├── "
        lines.append(f"{stem}{branch}{printable(name)}  {text}".rstrip())
    if note:
        lines.append(note)
    return Tree("\n".join(lines))


def describe_node(node: Any) -> str:
    """Text of one line about an array, group, image or unreadable node."""
    if isinstance(node, UnreadableNode):
        reason = printable(" ".join(str(node.error).split()))
        if len(reason) > _MAX_ERROR_LENGTH:
            reason = reason[: _MAX_ERROR_LENGTH - 3] + "..."
        return f"unreadable, {type(node.error).__name__}: {reason}"
    if hasattr(node, "levels"):
        width, height = node.dimensions
        return f"image {width} x {height} px of {node.dtype}, {len(node.levels)} level(s)"
    if hasattr(node, "chunks"):
        return _describe_array(node)
    if hasattr(node, "columns"):
        return f"plate {len(node.rows)} x {len(node.columns)}, {len(node)} well(s)"
    if hasattr(node, "fields"):
        return f"well of {len(node)} field(s)"
    return "group"


def format_shape(shape: Iterable[Any]) -> str:
    """Write a shape as people do.

    >>> format_shape((40, 30)), format_shape(())
    ('40 x 30', 'scalar')
    """
    return " x ".join(map(str, shape)) or "scalar"


def printable(text: str) -> str:
    r"""Text whose control characters are escaped: names in a store may hold any.

    >>> print(printable("a\x1b[2J"))
    a\x1b[2J
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _describe_array(array: Any) -> str:
    """Shape, type, chunks, shards, codecs."""
    spec = array.spec
    chunks = f"chunks {'up to ' * (spec.chunk_starts is not None)}{format_shape(array.chunks)}"
    if array.shards:
        uneven = spec.location.shard_starts is not None
        chunks += f" in shards {'up to ' * uneven}{format_shape(array.shards)}"
    codecs = " + ".join(array.codecs) or "uncompressed"
    return f"array {format_shape(array.shape)} {array.dtype}, {chunks}, {codecs}"
