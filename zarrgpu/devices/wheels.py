"""Where NVIDIA's wheels put their libraries: below `nvidia`, which many of them share."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


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
