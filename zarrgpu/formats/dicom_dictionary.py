"""Names and value representations of DICOM data elements, as PS3.6 lists them.

``dicom_dictionary.txt`` holds a line per element that is not retired: tag, value representation
(the first, where the standard names several) and keyword.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Final

_GENERIC_GROUP_LENGTH: Final = "GenericGroupLength"


@lru_cache(maxsize=1)
def _dictionary() -> dict[int, tuple[str, str]]:
    text = files("zarrgpu.formats").joinpath("dicom_dictionary.txt").read_text("ascii")
    return {int(line[:8], 16): (line[9:11], line[12:]) for line in text.splitlines()}


def keyword_of(tag: int) -> str | None:
    """Keyword of a tag; None for private, retired and unknown ones.

    >>> keyword_of(0x00280010), keyword_of(0x00090010)
    ('Rows', None)
    """
    if not tag & 0xFFFF:
        return _GENERIC_GROUP_LENGTH
    return _dictionary().get(tag, ("", None))[1]


def representation_of(tag: int) -> str:
    """Value representation of a tag that states none (implicit VR); ``UN`` for unknown ones.

    >>> representation_of(0x00280010), representation_of(0x00280000)
    ('US', 'UL')
    """
    if not tag & 0xFFFF:
        return "UL"
    return _dictionary().get(tag, ("UN", ""))[0]


def tag_name(tag: int) -> str:
    """Tag for messages: the keyword where there is one, else the numbers.

    >>> tag_name(0x7FE00010), tag_name(0x00090010)
    ('PixelData', '(0009,0010)')
    """
    return keyword_of(tag) or f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
