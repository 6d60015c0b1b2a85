"""Find the files of a DICOM slide in a store: one file and the others of its series, or a folder.

As in OpenSlide, the other files of a series are those beside it with its SeriesInstanceUID. Of the
others a few kilobytes are read. Files are looked at whose names end in ``.dcm`` or ``.dicom``, or
have no extension but perhaps numbers, as UIDs do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from zarrgpu.errors import MetadataError, StoreError, UnsupportedFormatError
from zarrgpu.formats.dicom_elements import is_dicom
from zarrgpu.formats.dicom_file import DicomFile
from zarrgpu.formats.dicom_slide import check_class, dicom_slide, storage_class
from zarrgpu.formats.dicom_syntaxes import WHOLE_SLIDE
from zarrgpu.slide_model import SlideSpec
from zarrgpu.stores.base import Store, range_reader

MAX_FILES: Final = 1 << 14
"""Files of a folder that are looked at; a folder with more is refused."""

_NAMES: Final = re.compile(r"[^.]+|(.*\.)?[0-9]+|.*\.(dcm|dicom)", re.IGNORECASE)
_MAX_NAMED: Final = 5


def is_dicom_head(head: bytes, key: str) -> bool:
    """Whether a file is opened as DICOM; one that is a TIFF as well goes by its name.

    >>> is_dicom_head(b"II*" + bytes(125) + b"DICM", "a.tiff")
    False
    """
    return is_dicom(head) and not (
        head[:2] in (b"II", b"MM") and key.lower().endswith((".tif", ".tiff"))
    )


def read_dicom(folder: Store, key: str, url: str, head: bytes = b"") -> SlideSpec:
    """Open the slide that the file `key` of a folder belongs to; `head` is what was read of it.

    A folder that cannot be listed, such as one of a plain web server, is taken for that one file.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        The file, or one of its series, is of a kind that is not read; by name.
    MetadataError
        A file is damaged.
    """
    start = _open(folder, key, url, head)
    check_class(start)
    parent = key.rpartition("/")[0]
    others = [name for name in _candidates(folder, parent) if name != key]
    uid = start.series_uid
    series = [file for file in _opened(folder, others) if uid and file.series_uid == uid]
    return dicom_slide([start, *series], source=url)


def read_dicom_folder(folder: Store) -> SlideSpec | None:
    """Open the slide whose files are in a folder; None if none of its files is DICOM.

    Raises
    ------
    UnsupportedFormatError
        There are slides of several series, or DICOM files but no slide.
    MetadataError, UnsupportedCodecError
        As `read_dicom`.
    """
    names = _candidates(folder, "")
    files = _opened(folder, names, of_slides=False)
    slides = [file for file in files if storage_class(file) == WHOLE_SLIDE]
    if not slides:
        for file in files[:1]:
            check_class(file)
        return None
    series = {file.series_uid: file for file in reversed(slides)}
    if len(series) > 1:
        named = ", ".join(sorted(repr(file.key) for file in series.values())[:_MAX_NAMED])
        msg = f"{folder.url!r} holds slides of {len(series)} series; open a file of one: {named}"
        raise UnsupportedFormatError(msg)
    return dicom_slide(slides, source=folder.url)


def _candidates(folder: Store, parent: str) -> list[str]:
    try:
        names = [name for name in folder.list_dir(parent) if _NAMES.fullmatch(name)]
    except StoreError:
        return []
    if len(names) > MAX_FILES:
        msg = f"{folder.url!r} holds {len(names)} files that may be of a DICOM series; at most "
        raise UnsupportedFormatError(msg + f"{MAX_FILES} are looked at")
    return [f"{parent}/{name}" if parent else name for name in names]


def _opened(folder: Store, keys: Sequence[str], *, of_slides: bool = True) -> list[DicomFile]:
    """Those files that are DICOM, as far as they can be read; in the order of `keys`."""

    def look(key: str) -> DicomFile | None:
        if folder.size(key) is None:
            return None  # a folder
        try:
            file = _open(folder, key, f"{folder.url}/{key}")
            wanted = not of_slides or storage_class(file) == WHOLE_SLIDE
            if wanted and storage_class(file) == WHOLE_SLIDE:
                _ = file.series_uid
        except (MetadataError, UnsupportedFormatError):
            return None  # not DICOM, or nothing that says that it is of the series
        return file if wanted else None

    if folder.io_concurrency < 2 or len(keys) < 2:
        found = [look(key) for key in keys]
    else:
        with ThreadPoolExecutor(min(folder.io_concurrency, len(keys))) as pool:
            found = list(pool.map(look, keys))
    return [file for file in found if file is not None]


def _open(folder: Store, key: str, url: str, head: bytes = b"") -> DicomFile:
    size = folder.size(key)
    if size is None:
        msg = f"{url!r} is no file"
        raise StoreError(msg)
    return DicomFile(range_reader(folder, key, url, head), size, source=url, key=key)
