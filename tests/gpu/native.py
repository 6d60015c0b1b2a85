"""Compile the host executor where zarrgpu is not installed but lies beside: on a lent machine.

usage: python -m tests.gpu.native
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """0 if the library is there."""
    name = "hatchling.builders.hooks.plugin.interface"
    if importlib.util.find_spec("hatchling") is None:  # only the hook's class needs it
        interface = types.ModuleType(name)
        interface.BuildHookInterface = object  # type: ignore[attr-defined]
        sys.modules[name] = interface
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "scripts/hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return 0 if module.compile_library(ROOT) else 1


if __name__ == "__main__":
    sys.exit(main())
