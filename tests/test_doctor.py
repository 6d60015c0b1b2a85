"""The doctor tells a device's codecs apart by what it has libraries for, and what is missing."""

from __future__ import annotations

import pytest

from tests.gpu.devices import open_device
from zarrgpu import doctor
from zarrgpu.codecs.device import DEVICE_DECODERS
from zarrgpu.codecs.registry import CODECS
from zarrgpu.errors import DeviceUnavailableError, MissingDependencyError


def _told(lines: list[str], start: str) -> list[str]:
    found = [line.strip().removeprefix(start) for line in lines if line.strip().startswith(start)]
    assert len(found) <= 1
    return found[0].partition(":")[0].strip().split(", ") if found else []


@pytest.mark.parametrize("formats", [(), ("jpeg",), ("jpeg", "jpeg2k")])
def test_every_codec_is_in_one_line(formats):
    driver = open_device("emulated", image_formats=formats).driver
    lines = doctor.describe_device(driver)
    assert lines[0].strip().startswith("emulated:0: ")
    on_device = _told(lines, "decodes ")
    lacking = _told(lines, "lacks the libraries below for ")
    on_host = _told(lines, "no decoder for ")
    assert sorted([*on_device, *lacking]) == sorted(DEVICE_DECODERS)
    assert sorted(on_host) == sorted(CODECS.keys() - DEVICE_DECODERS.keys())
    assert {doctor.IMAGE_CODECS[name] for name in lacking} == {"jpeg", "jpeg2k"} - set(formats)


def test_libraries_are_told_with_what_to_install(monkeypatch):
    def missing():
        raise MissingDependencyError("nvcomp was not found (paths); run: pip install 'x' (or y)")

    def old():
        raise DeviceUnavailableError("nvjpeg: too old")

    class Library:
        version = (0, 9)

    libraries = {"nvCOMP": missing, "nvJPEG": old, "nvJPEG2000": Library}
    monkeypatch.setattr(doctor, "_LIBRARIES", libraries)
    lines = [" ".join(line.split()) for line in doctor._libraries()]
    assert lines[:3] == [
        "nvCOMP not found; run: pip install 'x' (or y)",
        "nvJPEG nvjpeg: too old",
        "nvJPEG2000 0.9",
    ]
    assert lines[3].startswith("nvImageCodec ")
