"""Where NVIDIA's wheels put their libraries (below `nvidia`, which many share), and loading one."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from zarrgpu.errors import DeviceUnavailableError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Loaded = TypeVar("Loaded")


def find_libraries(sonames: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Paths of libraries in the wheels, then names for the system's loader.

    Parameters
    ----------
    sonames : sequence of str
        The best first.
    folders : sequence of str
        Below ``nvidia``.
    """
    spec = importlib.util.find_spec("nvidia")
    places = [Path(p) for p in (spec.submodule_search_locations or ())] if spec else []
    paths = [place / folder / name for name in sonames for place in places for folder in folders]
    return [*(str(path) for path in paths if path.is_file()), *sonames]


def open_library(name: str, path: str) -> ctypes.CDLL:
    """Load the library `name` from a path; `DeviceUnavailableError` if it does not load."""
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        msg = f"{name}: {path} does not load ({error})"
        raise DeviceUnavailableError(msg) from error


def load_first(load: Callable[[str], Loaded], paths: Iterable[str], needed: str) -> Loaded:
    """Load the first library that can be.

    Parameters
    ----------
    load : callable
        Takes a path; raises `DeviceUnavailableError` for what is no such library.
    paths : iterable of str
        The best first.
    needed : str
        For people: what is needed for what.

    Raises
    ------
    MissingDependencyError
        If there is none, with what was refused and what to install.
    """
    refused: list[str] = []
    for path in paths:
        try:
            return load(path)
        except DeviceUnavailableError as error:
            refused.append(str(error))
    msg = (
        f"{needed} on the device and was not found "
        f"({'; '.join(refused)}); run: pip install 'zarrgpu[cuda13]' (or cuda12)"
    )
    raise MissingDependencyError(msg)
