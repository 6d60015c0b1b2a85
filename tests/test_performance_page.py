"""docs/performance.md: its numbers are those of the JSONs, and what it tells to set exists."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields

import zarrgpu
from tests.benchmarks import performance_page
from tests.gpu import targets
from zarrgpu.model import ReadOptions

TEXT = performance_page.PAGE.read_text()


def test_the_numbers_are_those_of_the_files():
    assert performance_page.page(TEXT) == TEXT, "run: python -m tests.benchmarks.performance_page"


def test_no_other_number_is_a_measurement():
    rest = TEXT
    for name in performance_page.PARTS:
        begin, end = f"<!-- {name}: from JSON -->", f"<!-- end {name} -->"
        rest = rest[: rest.index(begin)] + rest[rest.index(end) :]
    assert not re.search(r"\d\s*(GB/s|ms\b|patches/s|patches a second|%)", rest)


def test_other_files_give_other_numbers(tmp_path, monkeypatch):
    found = performance_page.load("planning")
    found["results"] = {"x": {"median_ms": 123.4}}
    folder = tmp_path / "docs" / "benchmarks" / "gpu"
    folder.mkdir(parents=True)
    (folder.parent / "planning.json").write_text(json.dumps(found))
    monkeypatch.setattr(performance_page, "ROOT", tmp_path)
    changed = performance_page.page(TEXT)
    assert "123.4 ms" in changed
    assert changed.count(targets.NOT_RUN) >= len(targets.TARGETS) + 6
    assert performance_page.page(changed) == changed


def test_settings_that_are_named_exist():
    options = {field.name for field in fields(ReadOptions)}
    named = {"ReadOptions": options}
    for thing in (zarrgpu.PatchLoader, zarrgpu.open):
        named[thing.__name__] = set(inspect.signature(thing).parameters)
    table = TEXT[TEXT.index("## What to set") : TEXT.index("### Pinned memory")]
    seen = re.findall(r"`(ReadOptions|PatchLoader|open)\(([\w=, ]+)\)`", table)
    assert len(seen) >= 9
    for owner, arguments in seen:
        for argument in arguments.split(","):
            assert argument.split("=")[0].strip() in named[owner]


def test_files_that_are_named_exist():
    folder = performance_page.ROOT / "docs" / "benchmarks"
    for name in set(re.findall(r"`(\w+\.json)`", TEXT)):
        assert (folder / name).exists(), name
