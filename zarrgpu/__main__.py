"""Run the command line: ``python -m zarrgpu``."""

from __future__ import annotations

import sys

from zarrgpu.cli import main

if __name__ == "__main__":
    sys.exit(main())
