"""Four commands: ``demo`` (see it work), ``info`` and ``tree`` (what is in a path), ``doctor``.

Each subcommand imports what it needs when it runs, so that ``--help`` is instant. Errors that
zarrgpu raises on purpose become one line on stderr and exit status 1; anything else is a bug and
keeps its traceback.
"""

from __future__ import annotations

import argparse
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from zarrgpu.errors import ZarrGPUError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with `argv` (default: the process' own) and return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        _COMMANDS[arguments.command](arguments)
    except ZarrGPUError as error:
        print(f"zarrgpu: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("zarrgpu: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `zarrgpu info ... | head` has seen enough
        sys.stderr.close()
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zarrgpu", description="Chunked images into (GPU) memory, ready to train on."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="open an image, train a small model on its patches, write a report",
        description="Open an image, find its foreground, sample patches, train a small torch "
        "classifier on them and write a report. Without a path the demo makes a slide and an "
        "OME-Zarr image of its own.",
    )
    demo.add_argument("path", nargs="?", help="a whole-slide file or an OME-Zarr image")
    demo.add_argument(
        "--device", default="auto", help="auto (default), cpu, cuda or cuda:N: where batches live"
    )
    demo.add_argument("--epochs", type=_positive, default=4)
    demo.add_argument("--batch-size", type=_positive, default=32)
    demo.add_argument(
        "--patch-size", type=_positive, help="pixels of level 0 (default: by the image's size)"
    )
    demo.add_argument("--output", type=Path, default=Path("demo-report"), help="folder to write")
    demo.add_argument("--seed", type=int, default=7)
    info = commands.add_parser("info", help="say what is at a path: shapes, chunks, codecs, levels")
    info.add_argument("path", help="path or URL of a Zarr array or group, an OME-Zarr or a slide")
    tree = commands.add_parser("tree", help="draw the hierarchy of groups and arrays at a path")
    tree.add_argument("path", help="as for info")
    tree.add_argument("--max-depth", type=_depth, help="0 for direct members (default: all)")
    tree.add_argument("--max-nodes", type=_positive, default=500, help="default: %(default)s")
    commands.add_parser("doctor", help="say what is installed and what runs where")
    return parser


def _positive(text: str) -> int:
    """Integer of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        msg = f"expected at least 1, got {value}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _depth(text: str) -> int:
    """Integer of at least 0, for argparse."""
    value = int(text)
    if value < 0:
        msg = f"expected at least 0, got {value}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _demo(arguments: argparse.Namespace) -> None:
    from zarrgpu.demo.run import DemoConfig, run_demo

    config = DemoConfig(
        path=arguments.path,
        output=arguments.output,
        device=None if arguments.device == "auto" else arguments.device,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        patch_size=arguments.patch_size,
        seed=arguments.seed,
    )
    run_demo(config)


def _info(arguments: argparse.Namespace) -> None:
    from zarrgpu.describe import describe_path

    print("\n".join(describe_path(arguments.path)))


def _tree(arguments: argparse.Namespace) -> None:
    from zarrgpu.describe import draw_path

    limits = {"max_depth": arguments.max_depth, "max_nodes": arguments.max_nodes}
    tree = draw_path(arguments.path, **limits)
    if isinstance(sys.stdout, TextIOWrapper):  # a terminal that has no such characters gets "?"
        sys.stdout.reconfigure(errors="replace")
    print(tree)


def _doctor(_: argparse.Namespace) -> None:
    from zarrgpu.doctor import examine

    print("\n".join(examine()))


_COMMANDS = {"demo": _demo, "info": _info, "tree": _tree, "doctor": _doctor}
