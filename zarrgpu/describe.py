"""Say in a few lines what is at a path, without reading a pixel."""

from __future__ import annotations

from zarrgpu.array import Array
from zarrgpu.group import Group
from zarrgpu.opening import open as open_node
from zarrgpu.pages import Pages
from zarrgpu.plan.explain import format_nbytes
from zarrgpu.plate import Plate, Well
from zarrgpu.slide import Slide
from zarrgpu.tree import Tree, describe_node, draw_tree, format_shape, printable


def describe_path(path: str) -> list[str]:
    """Lines about the array, group or slide at `path`; the errors are those of `zarrgpu.open`."""
    node = open_node(path)
    if isinstance(node, Slide):
        return describe_slide(node)
    if isinstance(node, Group):
        return describe_group(node)
    if isinstance(node, (Plate, Well)):
        return describe_plate(node)
    if isinstance(node, Pages):
        return [repr(node), *(f"  page {i}  {describe_node(page)}" for i, page in enumerate(node))]
    return [repr(node), *(f"  {line}" for line in describe_array(node))]


def describe_array(array: Array) -> list[str]:
    """Shape, type, chunks, shards, codecs and size of an array, a line each."""
    names = [name or "?" for name in array.dimension_names]
    lines = [
        f"shape   {format_shape(array.shape)}" + (f"  ({', '.join(names)})" if any(names) else "")
    ]
    lines.append(f"dtype   {array.spec.dtype.name}")
    lines.append(f"chunks  {format_shape(array.chunks)}")
    if array.shards:
        lines.append(f"shards  {format_shape(array.shards)}")
    lines.append(f"codecs  {' + '.join(array.codecs) or 'uncompressed'}")
    lines.append(f"size    {format_nbytes(array.nbytes)} decoded")
    return lines


def describe_group(group: Group) -> list[str]:
    """What a group says of itself, and its members, a line each."""
    lines = [repr(group), *(f"  {line}" for line in group.info.splitlines())]
    return lines + group.tree(0).splitlines()


def describe_plate(node: Plate | Well) -> list[str]:
    """Rows, columns and wells of a plate, or fields of a well."""
    lines = [repr(node)]
    if isinstance(node, Well):
        return lines + [
            f"  field {each.path}"
            + (f"  acquisition {each.acquisition}" if each.acquisition is not None else "")
            for each in node.fields
        ]
    lines.append(f"  name          {printable(node.name) or 'not stated'}")
    lines.append(f"  rows          {', '.join(map(printable, node.rows))}")
    lines.append(f"  columns       {', '.join(map(printable, node.columns))}")
    lines.append(f"  wells         {', '.join(map(printable, node))}")
    runs = [f"  acquisition   {run.id}  {printable(run.name)}" for run in node.acquisitions]
    return lines + [line.rstrip() for line in runs]


def draw_path(path: str, *, max_depth: int | None = None, max_nodes: int = 500) -> Tree:
    """Draw what is at `path`; the errors are those of `zarrgpu.open`.

    A whole-slide file is drawn as its levels and associated images. `max_depth` and `max_nodes` are
    those of `Group.tree`.
    """
    node = open_node(path)
    if isinstance(node, Array):
        return draw_tree(f"/  {describe_node(node)}", [])
    if isinstance(node, Group):
        return node.tree(max_depth, max_nodes=max_nodes)
    if isinstance(node, (Plate, Well)):
        return node.group.tree(max_depth, max_nodes=max_nodes)
    if isinstance(node, Pages):
        return draw_tree("/", [(f"page {i}", describe_node(page)) for i, page in enumerate(node)])
    if node.group is not None:
        return node.group.tree(max_depth, max_nodes=max_nodes)
    rows = [(f"level {i}", describe_node(level)) for i, level in enumerate(node.levels)]
    rows += [(name, describe_node(image)) for name, image in sorted(node.associated_images.items())]
    return draw_tree(f"/  {describe_node(node)}", rows)


def describe_slide(slide: Slide) -> list[str]:
    """Size, pixel size, levels and associated images of a slide."""
    width, height = slide.dimensions
    mpp_x, mpp_y = slide.mpp
    lines = [
        repr(slide),
        f"  size        {width} x {height} px, {slide.channel_count} channels of {slide.dtype}",
        f"  pixel size  {f'{mpp_x:g} x {mpp_y:g} um' if mpp_x and mpp_y else 'not stated'}",
        f"  axes        {', '.join(slide.axes)}",
    ]
    for number, level in enumerate(slide.levels):
        w, h = slide.level_dimensions[number]
        layout = f"chunks {format_shape(level.chunks)}"
        if level.shards:
            layout += f" in shards {format_shape(level.shards)}"
        codecs = " + ".join(level.codecs) or "uncompressed"
        lines.append(
            f"  level {number}     {w} x {h} px, downsample {slide.level_downsamples[number]:g}, "
            f"{layout}, {codecs}, {format_nbytes(level.nbytes)} decoded"
        )
    if slide.associated_images:
        lines.append(f"  associated  {', '.join(sorted(slide.associated_images))}")
    return lines
