"""What an interrupted conversion has done: a folder, a document, and a line for each shard.

All is written into ``OUTPUT.partial``, which becomes ``OUTPUT`` by one rename when everything is
there. In it lie ``convert.json``, what is converted and how, and ``convert.done``, a line for each
finished shard, written after the shard. A process that is killed leaves a shard too many at worst.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from zarrgpu.errors import RequestError, StoreError, UnsupportedFormatError
from zarrgpu.stores.public import public_address

_STATE: Final = "convert.json"
_DONE: Final = "convert.done"
_LOCK: Final = "convert.lock"


class PartialOutput:
    """The folder of one conversion, made or taken up again.

    Parameters
    ----------
    output : Path
    identity : mapping
        JSON document of source and settings; a folder of another one is refused.
    overwrite : bool
        Replace what is at `output`, and begin anew where `identity` differs.

    Raises
    ------
    StoreError
        If there is something at `output`, or the partial folder is of another conversion, and
        `overwrite` is false; or another process is at work on it.
    """

    def __init__(self, output: Path, identity: dict[str, Any], *, overwrite: bool) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".partial")
        self._overwrite = overwrite
        if output.exists() and not overwrite:
            msg = f"{str(output)!r} exists; pass overwrite=True (--overwrite) to replace it"
            raise StoreError(msg)
        self._take_up(identity)
        self._lock = threading.Lock()
        self._lock_file = _locked(self.folder / _LOCK)
        self.done = self._read_done()
        self._log = (self.folder / _DONE).open("a")

    def mark(self, shard: str) -> None:
        """Note that a shard is finished."""
        with self._lock:
            self.done.add(shard)
            self._log.write(shard + "\n")
            self._log.flush()

    def close(self) -> None:
        """Stop; what is done stays for the next run."""
        self._log.close()
        os.close(self._lock_file)

    def finish(self) -> None:
        """Make the folder the output."""
        self.close()
        old = None
        if self._overwrite and self.output.exists():
            old = self.output.with_name(self.output.name + ".replaced")
            _remove(old)
            self.output.rename(old)
        # the state goes last: whoever is stopped before can still take the folder up again
        self.folder.rename(self.output)
        for name in (_STATE, _DONE, _LOCK):
            (self.output / name).unlink()
        if old is not None:
            _remove(old)

    def _take_up(self, identity: dict[str, Any]) -> None:
        state = self.folder / _STATE
        text = json.dumps(identity, sort_keys=True)
        new = state.with_name(_STATE + ".new")
        begun = self.folder.is_dir() and set(self.folder.iterdir()) <= {new}
        same = state.is_file() and state.read_text() == text
        if self.folder.exists() and not (begun or same):
            if not self._overwrite:
                msg = (
                    f"{str(self.folder)!r} is of another conversion, or the source or the options "
                    "have changed since; remove it, or pass overwrite=True (--overwrite)"
                )
                raise StoreError(msg)
            if not state.is_file():
                msg = f"{str(self.folder)!r} was not made by zarrgpu convert; remove it"
                raise StoreError(msg)
            os.close(_locked(self.folder / _LOCK))
            _remove(self.folder)
        if begun or not self.folder.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            new.write_text(text)
            new.replace(state)  # whole, or not there: whoever is stopped between can begin again

    def _read_done(self) -> set[str]:
        path = self.folder / _DONE
        if not path.exists():
            return set()
        lines = path.read_text().split("\n")
        if lines[-1]:  # cut off by the end of the process
            path.write_text("".join(f"{line}\n" for line in lines[:-1]))
        return {line for line in lines[:-1] if line}


def _locked(path: Path) -> int:
    """Descriptor that holds a lock while this process lives."""
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        msg = f"{str(path.parent)!r}: another process is converting into it"
        raise StoreError(msg) from error
    return descriptor


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


def fingerprint(files: Iterable[Path], described: str) -> str:
    """Tell one source from a changed one: names, sizes and times of its files, and its metadata.

    Parameters
    ----------
    files : iterable of Path
        Files, and folders with all that is in them. For a source that is not local there are none.
    described : str
        What is known of it without reading pixels.
    """
    digest = hashlib.sha256(described.encode())
    for path in sorted(files):
        inside = [path] if not path.is_dir() else sorted(p for p in path.rglob("*") if p.is_file())
        for each in inside:
            found = each.stat()
            digest.update(f"{each}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def local_output(path: str | os.PathLike[str]) -> Path:
    """Path of the output; a URL is refused."""
    text = public_address(os.fsdecode(path))
    if "://" in text:
        msg = f"{text!r}: conversions are written to local folders; copy the result afterwards"
        raise UnsupportedFormatError(msg)
    output = Path(text).expanduser()
    output = Path(os.path.abspath(output))  # noqa: PTH100 - without following links
    if not output.name:
        raise RequestError(f"{text!r} names no folder to write")
    return output
