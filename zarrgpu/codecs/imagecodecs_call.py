"""The one door to imagecodecs: absent package and corrupt input become zarrgpu's own errors.

imagecodecs releases the GIL while it decodes, and its decoders may be called from any thread.
"""

from __future__ import annotations

from typing import Any

from zarrgpu.codecs.base import CodecError
from zarrgpu.errors import MissingDependencyError


def require_codec(function: str) -> None:
    """Raise `MissingDependencyError` where imagecodecs is there, but was built without a decoder.

    An absent imagecodecs is told when something is decoded (`call_imagecodecs`).
    """
    try:
        import imagecodecs
    except ImportError:
        return
    constants = getattr(imagecodecs, function.removesuffix("_decode").upper(), None)
    if not getattr(constants, "available", False):
        msg = (
            f"decoding this data needs {function}, which this imagecodecs "
            f"({imagecodecs.__version__}) was built without; install a build that has it"
        )
        raise MissingDependencyError(msg)


def call_imagecodecs(function: str, data: Any, /, *arguments: Any, **options: Any) -> Any:
    """Call a decoder of imagecodecs.

    Raises
    ------
    MissingDependencyError
        imagecodecs is not installed.
    CodecError
        The decoder refused `data`.
    """
    try:
        import imagecodecs
    except ImportError as error:
        msg = (
            f"decoding this data needs imagecodecs ({function}), which is not installed; "
            "run: pip install 'zarrgpu[slides]'"
        )
        raise MissingDependencyError(msg) from error
    decode = getattr(imagecodecs, function)
    try:
        return decode(data, *arguments, **options)
    except Exception as error:
        # imagecodecs raises RuntimeError kin, ValueError, NotImplementedError, depending on library
        msg = f"{function} refused the data: {str(error) or type(error).__name__}"
        raise CodecError(msg) from error
