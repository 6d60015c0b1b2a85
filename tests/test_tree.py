"""Law: a drawn tree has a line for each node, in order, with its shape, type, chunks and codecs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import zarr

import zarrgpu as zg
from tests.hierarchies import (
    FORMATS,
    GROUP,
    consolidated_objects,
    example,
    plain_objects,
)
from tests.test_opening import small_slide
from tests.zarr_cases import MemoryStore, Recipe, encode, write
from zarrgpu.cli import main


@FORMATS
def test_the_tree_is_drawn(zarr_format, capsys, tmp_path):
    store = example(zarr_format)
    root = zarr.open_group(store)
    if zarr_format == 3:
        root.create_array("s", shape=(8, 6), chunks=(2, 3), shards=(4, 6), dtype="f4")
    write(tmp_path, {key: value.to_bytes() for key, value in store._store_dict.items()})
    group = zg.open(tmp_path)
    array = f"array 4 uint16, chunks 2, {'zstd' if zarr_format == 3 else 'blosc'}"
    shards = "├── s  array 8 x 6 float32, chunks 2 x 3 in shards 4 x 6, zstd"
    lines = [
        "/",
        "├── e  group",
        "├── g  group",
        "│   ├── h  group",
        f"│   │   └── z  {array}",
        f"│   └── y  {array}",
        *([shards] if zarr_format == 3 else []),
        f"└── x  {array}",
    ]
    assert repr(group.tree()) == str(group.tree()) == "\n".join(lines)
    flat = [line for line in lines if not line.startswith("│")]
    assert group.tree(0).splitlines() == flat
    assert group["g"].tree(1).splitlines()[0] == "/g"
    cut = group.tree(max_nodes=2)
    assert cut.splitlines() == ["/", "├── e  group", "└── g  group", cut.splitlines()[-1]]
    assert "there is more" in cut.splitlines()[-1]
    with pytest.raises(ValueError, match="max_depth"):
        group.tree(-1)
    assert main(["tree", str(tmp_path), "--max-depth", "0"]) == 0
    assert capsys.readouterr().out.splitlines() == flat
    assert main(["tree", str(tmp_path / "x")]) == 0
    assert capsys.readouterr().out == f"/  {array}\n"
    with pytest.raises(SystemExit):
        main(["tree", str(tmp_path), "--max-depth", "-1"])


def test_uneven_chunks_are_drawn_as_such():
    document = json.loads(encode(np.zeros((6, 5), "u1"), Recipe(chunks=(2, 5)))["zarr.json"])
    grid = {"kind": "inline", "chunk_shapes": [[2, 4], 3]}
    document["chunk_grid"] = {"name": "rectilinear", "configuration": grid}
    objects = {
        "zarr.json": json.dumps(GROUP).encode(),
        "a/zarr.json": json.dumps(document).encode(),
    }
    text = zg.open(MemoryStore(objects)).tree()
    assert text == "/\n└── a  array 6 x 5 uint8, chunks up to 4 x 3, uncompressed"


def test_slides_are_drawn_as_their_levels(capsys, tmp_path):
    (tmp_path / "a.svs").write_bytes(small_slide())
    assert main(["tree", str(tmp_path / "a.svs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "/  image 80 x 64 px of uint8, 1 level(s)"
    assert lines[1].startswith("└── level 0  array 64 x 80 x 3 uint8, chunks 32 x 32 x 3, ")


def test_a_terminal_without_the_characters_is_no_error(tmp_path):
    write(tmp_path, plain_objects(3))
    command = [sys.executable, "-m", "zarrgpu", "tree", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 7
    assert "??? e  group" in done.stdout


def test_info_of_a_group_shows_its_members(capsys, tmp_path):
    write(tmp_path, plain_objects(2))
    assert main(["info", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for fact in ("zarr format   2", "attributes    k", "├── g  group", "└── x  array 4 uint16"):
        assert fact in out


def test_names_cannot_paint_the_terminal():
    objects = {"zarr.json": json.dumps(GROUP).encode()}
    objects["\x1b[31mred/zarr.json"] = objects["a\nb/zarr.json"] = objects["zarr.json"]
    text = zg.open(MemoryStore(objects)).tree()
    assert text.splitlines() == ["/", r"├── \x1b[31mred  group", r"└── a\nb  group"]


def test_a_group_tells_about_itself():
    group = zg.open(MemoryStore(consolidated_objects(3)))
    for fact in ("name          /", "zarr format   3", "consolidated  6 nodes", "attributes    k"):
        assert fact in group.info.splitlines()
    assert "consolidated  no" in zg.open(MemoryStore(plain_objects(2)))["g"].info
    assert (group.name, group["g/h"].name, group["g/h"].basename) == ("/", "/g/h", "h")
