"""pytest plugin: what came of zarr-python's tests, and what ran through zarrgpu, as JSON.

Loaded with ``-p recorder`` into the interpreter that runs them; knows nothing of this repository.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

_outcomes: Counter[str] = Counter()
_failed: list[str] = []
_began = time.monotonic()


def pytest_runtest_logreport(report: Any) -> None:
    """Count a test once: by its call, or by what kept it from being called."""
    if report.when != "call" and report.outcome == "passed":
        return
    outcome = report.outcome
    if hasattr(report, "wasxfail"):
        outcome = "xfailed" if outcome == "skipped" else "xpassed"
    _outcomes[outcome] += 1
    if outcome == "failed":
        _failed.append(f"{report.nodeid} ({report.when})")


def pytest_sessionfinish(session: Any, exitstatus: int) -> None:
    """Write the record to the path in ``ZARRGPU_SUITE_RECORD``."""
    from zarr.registry import get_pipeline_class

    pipeline = get_pipeline_class()
    stats = getattr(pipeline, "stats", None)
    record = {
        "pipeline": f"{pipeline.__module__}.{pipeline.__qualname__}",
        "exit_status": int(exitstatus),
        "collected": session.testscollected,
        **{name: _outcomes[name] for name in ("passed", "failed", "skipped", "xfailed", "xpassed")},
        "failures": _failed,
        "seconds": round(time.monotonic() - _began, 1),
    }
    if stats is not None:
        record["reads"] = stats.as_dict()
    Path(os.environ["ZARRGPU_SUITE_RECORD"]).write_text(json.dumps(record))
