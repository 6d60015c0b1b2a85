"""Print the story in sections of short facts."""

from __future__ import annotations

import sys

KEY_WIDTH = 10


def title(text: str) -> None:
    """Begin a section."""
    print(f"\n\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def fact(key: str, value: str) -> None:
    """Print one thing with its name before it."""
    print(f"  {key:<{KEY_WIDTH}} {value}", flush=True)


def note(text: str) -> None:
    """Print a remark."""
    print(f"  {text}", flush=True)


def block(text: str) -> None:
    """Print lines as they are, indented."""
    for line in text.splitlines():
        print(f"  {line}", flush=True)
