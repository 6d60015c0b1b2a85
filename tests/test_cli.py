"""The command line's laws.

What zarrgpu refuses becomes one line on stderr and exit status 1, never a traceback; bad usage is
argparse's status 2; and `demo` leaves a whole report behind on every kind of image that is read.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zarrgpu.cli import main
from zarrgpu.devices.resolve import cuda_problem

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    pytest.importorskip("zarr")
    pytest.importorskip("skimage")
    from zarrgpu.demo.inputs import make_inputs

    return make_inputs(tmp_path_factory.mktemp("cli-input"), size_px=1024, seed=3)


@pytest.fixture
def group(tmp_path):
    zarr = pytest.importorskip("zarr")
    root = zarr.create_group(tmp_path / "group.zarr", attributes={"origin": "test"})
    array = root.create_array(
        "a", shape=(40, 30), dtype="uint16", chunks=(10, 10), shards=(20, 30), fill_value=3
    )
    array[...] = np.arange(1200, dtype=np.uint16).reshape(40, 30)
    root.create_group("b")
    return tmp_path / "group.zarr"


def _error(capsys, *argv):
    """Run a command that must fail; returns its one line."""
    assert main(argv) == 1
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("zarrgpu: error: ")
    return lines[0]


# --- info


def test_info_of_an_array(capsys, group):
    assert main(["info", str(group / "a")]) == 0
    out = capsys.readouterr().out
    for fact in ("40 x 30", "uint16", "chunks  10 x 10", "shards  20 x 30", "zstd", "2.3 KiB"):
        assert fact in out


def test_info_of_a_group(capsys, group):
    assert main(["info", str(group)]) == 0
    out = capsys.readouterr().out
    assert "a  array 40 x 30 uint16" in out
    assert "b  group" in out
    assert "origin" in out


def test_info_of_a_slide(capsys, inputs):
    assert main(["info", str(inputs[0])]) == 0
    out = capsys.readouterr().out
    assert "1024 x 1024 px, 3 channels of uint8" in out
    assert "0.5 x 0.5 um" in out
    assert "level 1     256 x 256 px, downsample 4" in out
    assert "jpeg" in out
    assert "label, macro, thumbnail" in out


def test_info_of_an_ome_zarr_image(capsys, inputs):
    assert main(["info", str(inputs[1])]) == 0
    out = capsys.readouterr().out
    assert "2 channels of uint16" in out
    assert "c, y, x" in out
    assert "in shards 1 x 1024 x 1024" in out


# --- errors


@pytest.mark.parametrize("command", ["info", "demo"])
def test_a_missing_path_is_one_line(capsys, tmp_path, command):
    path = tmp_path / "nothing.svs"
    line = _error(capsys, command, str(path), *_output(command, tmp_path))
    assert "nothing.svs" in line


@pytest.mark.parametrize("command", ["info", "demo"])
def test_a_file_of_another_kind_is_one_line(capsys, tmp_path, command):
    path = tmp_path / "notes.txt"
    path.write_text("no image\nat all\n")
    assert "notes.txt" in _error(capsys, command, str(path), *_output(command, tmp_path))


@pytest.mark.parametrize("command", ["info", "demo"])
def test_corrupt_metadata_is_one_line(capsys, group, command):
    (group / "a" / "zarr.json").write_text('{"zarr_format": 3,')
    _error(capsys, command, str(group / "a"), *_output(command, group.parent))


def _output(command, folder):
    return ("--output", str(folder / "report")) if command == "demo" else ()


def test_demo_of_a_plain_array_says_that_it_is_no_slide(capsys, group, tmp_path):
    line = _error(capsys, "demo", str(group / "a"), "--output", str(tmp_path / "report"))
    assert "not a slide" in line


def test_demo_with_a_patch_larger_than_the_image(capsys, inputs, tmp_path):
    argv = ("demo", str(inputs[0]), "--patch-size", "2000", "--output", str(tmp_path / "report"))
    line = _error(capsys, *argv)
    assert "2000" in line
    assert "1024" in line


def test_demo_on_a_gpu_that_is_not_there(capsys, inputs, tmp_path):
    if not cuda_problem():
        pytest.skip("a CUDA device is here")
    argv = ("demo", str(inputs[0]), "--device", "cuda", "--output", str(tmp_path / "report"))
    assert "cuda" in _error(capsys, *argv)


def test_demo_into_a_folder_that_cannot_be(capsys, inputs, tmp_path):
    (tmp_path / "file").write_text("in the way")
    line = _error(capsys, "demo", str(inputs[0]), "--output", str(tmp_path / "file" / "report"))
    assert "--output" in line


def test_demo_on_a_device_that_does_not_exist(capsys, inputs, tmp_path):
    argv = ("demo", str(inputs[0]), "--device", "tpu", "--output", str(tmp_path / "report"))
    assert "tpu" in _error(capsys, *argv)


@pytest.mark.parametrize(
    "argv", [[], ["dance"], ["demo", "--epochs", "0"], ["demo", "--batch-size", "x"], ["info"]]
)
def test_bad_usage_is_status_2(capsys, argv):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert "usage: zarrgpu" in capsys.readouterr().err


# --- doctor


def test_doctor_says_what_is_here(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert np.__version__ in out
    for codec in ("zstd", "blosc", "jpeg"):
        assert f"  {codec:<14} ready" in out or f"  {codec:<14} needs" in out
    if cuda_problem():
        assert f"none: {cuda_problem()}" in out


def test_doctor_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    import importlib.util

    found = importlib.util.find_spec

    def find_spec(name, package=None):
        return None if name == "imagecodecs" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"  {'jpeg':<14} needs imagecodecs: pip install 'zarrgpu[slides]'" in out
    assert f"  {'zstd':<14} ready" in out


def test_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "zarrgpu", "info", "/no/such/thing"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("zarrgpu: error: ")
    assert "Traceback" not in done.stderr


# --- demo, end to end


@pytest.fixture
def one_torch_thread():
    """Small steps on threads that share cores with other work wait for each other."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _numbers(output):
    """Check that the report in `output` is whole; returns its numbers."""
    for name in ("thumbnail.png", "patches.png", "loss.png"):
        data = (output / name).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert len(data) > 8000, f"{name} is not blank"
    return json.loads((output / "report.json").read_text())


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize("kind", [0, 1], ids=["svs", "ome-zarr"])
def test_demo_trains_on_its_own_inputs(capsys, inputs, tmp_path, kind):
    from zarrgpu.demo.run import DemoConfig, run_demo

    config = DemoConfig(
        path=str(inputs[kind]),
        output=tmp_path / "report",
        device="cpu",
        epochs=2,
        batch_size=16,
        patch_size=64,
        num_patches=320,
    )
    assert run_demo(config) == [tmp_path / "report"]
    numbers = _numbers(tmp_path / "report")
    training, reading = numbers["training"], numbers["reading"]
    assert training["epochs"][-1]["train_loss"] < training["step_losses"][0]
    assert training["accuracy_after"] > 0.8
    assert reading["patches"] == 320
    assert reading["decoded_bytes"] > 320 * 1000
    assert numbers["image"]["mpp"] == [0.5, 0.5]
    assert numbers["validation_side"] is not None
    out = capsys.readouterr().out
    for word in ("patches/s", "MB/s", "decode", "cpu", "loss", str(tmp_path / "report")):
        assert word in out


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_demo_runs_on_a_constant_image_of_16_pixels(capsys, tmp_path, dtype):
    zarr = pytest.importorskip("zarr")
    from zarrgpu.demo.inputs import write_group

    path = tmp_path / "flat.ome.zarr"
    array = zarr.create_array(path / "0", shape=(2, 16, 16), dtype=dtype, chunks=(1, 8, 8))
    array[...] = 5
    write_group(path, [1])
    output = tmp_path / "report"
    assert main(["demo", str(path), "--output", str(output), "--epochs", "1"]) == 0
    numbers = _numbers(output)
    assert numbers["patch_px"] == 8
    assert numbers["training"]["accuracy_of_commoner_class"] == 1
    assert "nothing to tell apart" in capsys.readouterr().out


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.slides
@pytest.mark.parametrize(
    "name",
    [
        "ome/v0.4",
        "ome/v0.5",
        "slides/small.svs",
        pytest.param("slides/CMU-1-Small-Region.svs", marks=pytest.mark.slow),
        pytest.param("slides/tcga-jpeg2000.svs", marks=pytest.mark.slow),
    ],
)
def test_demo_runs_on_real_files(tmp_path, name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    output = tmp_path / "report"
    assert main(["demo", str(path), "--output", str(output), "--epochs", "1"]) == 0
    numbers = _numbers(output)
    assert np.isfinite(numbers["training"]["epochs"][0]["train_loss"])
