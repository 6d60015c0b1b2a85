"""Addresses without what is for the server alone: queries (signatures, tokens) and passwords."""

from __future__ import annotations

import re
from typing import Final

_PASSWORD: Final = re.compile(r"(?<=://)[^/@\s'\"]*:[^/@\s'\"]*@")
_QUERY: Final = re.compile(r"\?.*?(?=::|$)", re.DOTALL)
_QUERY_IN_TEXT: Final = re.compile(r"(://[^\s'\"?]*)\?[^\s'\"]*")


def public_address(address: str) -> str:
    """Give a URL, a chained one too, as it may be shown and stored; a path as it is.

    >>> public_address("zip://0::https://me:word@host/x.zip?signature=abc")
    'zip://0::https://host/x.zip'
    >>> public_address("what?.svs")
    'what?.svs'
    """
    return _QUERY.sub("", _PASSWORD.sub("", address)) if "://" in address else address


def public_text(text: str) -> str:
    """Give a message in which URLs are as they may be shown.

    >>> public_text("403, url='https://host/a.svs?signature=abc'; check it")
    "403, url='https://host/a.svs'; check it"
    """
    return _QUERY_IN_TEXT.sub(r"\1", _PASSWORD.sub("", text))
