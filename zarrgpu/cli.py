"""Commands: ``demo``, ``info`` and ``tree`` (what is there), ``convert``, ``validate``, ``doctor``.

Each subcommand imports what it needs when it runs, so that ``--help`` is instant. Errors that
zarrgpu raises on purpose become one line on stderr and exit status 1; anything else is a bug and
keeps its traceback.
"""

from __future__ import annotations

import argparse
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zarrgpu.errors import RequestError, ZarrGPUError

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
    _add_convert(commands)
    validate = commands.add_parser(
        "validate",
        help="list every problem of the OME-Zarr metadata at a path",
        description="List every problem of the OME-Zarr metadata at a path and of what lies below "
        "it, one a line; exit status 1 if there is one.",
    )
    validate.add_argument("path", help="path or URL of an OME-Zarr image, plate, well or series")
    validate.add_argument(
        "--strict", action="store_true", help="what the specification recommends must be there too"
    )
    validate.add_argument(
        "--shallow", action="store_true", help="only the group itself, not what lies below it"
    )
    commands.add_parser("doctor", help="say what is installed and what runs where")
    return parser


def _add_convert(commands: Any) -> None:
    convert = commands.add_parser(
        "convert",
        help="write a slide, an OME-Zarr, a NIfTI or a Zarr array as a sharded OME-Zarr 0.5",
        description="Write a sharded OME-Zarr 0.5 pyramid. An interrupted run goes on when it is "
        "started again; the output appears when it is complete.",
    )
    convert.add_argument("source", help="path or URL of whatever zarrgpu opens as an image")
    convert.add_argument("output", help="folder to write, such as slide.zarr")
    convert.add_argument("--chunk", type=_positive, metavar="PX", help="default: 256, volumes 64")
    convert.add_argument("--shard", type=_positive, metavar="PX", help="default: 4096, volumes 256")
    convert.add_argument(
        "--codec",
        default="auto",
        choices=("auto", "zstd", "blosc", "lz4", "gzip", "none", "jpeg"),
        help="default: zstd, for elements of several bytes blosc (zstd, shuffled)",
    )
    convert.add_argument(
        "--copy-tiles", action="store_true", help="with --codec jpeg: take JPEG tiles as they are"
    )
    convert.add_argument(
        "--pyramid",
        default="auto",
        choices=("auto", "keep", "generate"),
        help="coarser levels: the source's, or means (default: means if the source has one level)",
    )
    convert.add_argument("--axes", help="names of the source's axes, such as czyx")
    convert.add_argument(
        "--no-associated", action="store_true", help="leave label, macro and thumbnail out"
    )
    convert.add_argument(
        "--no-labels", action="store_true", help="leave label images of an OME-Zarr out"
    )
    convert.add_argument("--overwrite", action="store_true", help="replace what is at OUTPUT")
    convert.add_argument("--threads", type=_positive, help="default: the cores, if memory allows")
    convert.add_argument(
        "--memory", type=_positive, default=1024, metavar="MIB", help="default: 1024"
    )
    convert.add_argument("--quiet", action="store_true", help="no progress bar")


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


def _convert(arguments: argparse.Namespace) -> None:
    from zarrgpu.convert import ConvertOptions, convert

    try:
        options = ConvertOptions(
            chunk_px=arguments.chunk,
            shard_px=arguments.shard,
            codec=arguments.codec,
            copy_tiles=arguments.copy_tiles,
            pyramid=arguments.pyramid,
            axes=arguments.axes,
            associated=not arguments.no_associated,
            labels=not arguments.no_labels,
            overwrite=arguments.overwrite,
            num_threads=arguments.threads,
            memory_budget_bytes=arguments.memory << 20,
        )
    except ValueError as error:  # options that exclude each other
        raise RequestError(str(error)) from error
    print(convert(arguments.source, arguments.output, options=options, quiet=arguments.quiet))


def _doctor(_: argparse.Namespace) -> None:
    from zarrgpu.doctor import examine

    print("\n".join(examine()))


def _validate(arguments: argparse.Namespace) -> None:
    from zarrgpu.errors import MetadataError
    from zarrgpu.stores.public import public_address
    from zarrgpu.tree import printable
    from zarrgpu.validation import validate

    problems = validate(arguments.path, strict=arguments.strict, deep=not arguments.shallow)
    for problem in problems:
        print(printable(f"{problem}  ({problem.kind})"))
    if problems:
        msg = f"{len(problems)} problem(s)"
        raise MetadataError(msg, source=public_address(arguments.path))
    print("no problems")


_COMMANDS = {
    "demo": _demo,
    "info": _info,
    "tree": _tree,
    "convert": _convert,
    "validate": _validate,
    "doctor": _doctor,
}
