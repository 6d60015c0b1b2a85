"""Which failures of a remote store pass by themselves, and how long to wait for that."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import sleep
from typing import TypeVar

from zarrgpu.errors import StoreError
from zarrgpu.stores.public import public_text

ATTEMPTS = 5
"""How often a request is tried before its failure is reported."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_PASSING_STATUSES = {408, 425, 429}
"""Of HTTP's 4xx: timeout, too early, too many requests. Others will be the same next time."""

_LASTING = (
    PermissionError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    NotImplementedError,
    ImportError,
    MemoryError,
)
_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)

T = TypeVar("T")


def pause_s(number: int) -> float:
    """Seconds to wait after a failed attempt, the first being 1: doubled each time, and random.

    Random, so that threads that failed together do not come back together.
    """
    pause: float = min(_FIRST_PAUSE_S * 2 ** (number - 1), _LONGEST_PAUSE_S)
    return pause * random.uniform(0.75, 1.25)


def http_status(error: BaseException) -> int | None:
    """HTTP status in a client library's error or in one that caused it, or None."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            break
        for name in ("status", "status_code", "code"):  # aiohttp's, azure's, gcsfs's
            status = getattr(seen, name, None)
            if isinstance(status, int) and 100 <= status < 600:
                return status
        response = getattr(seen, "response", None)
        if isinstance(response, dict):  # botocore's
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(status, int):
                return status
        seen = seen.__cause__ or seen.__context__
    return None


def passes(error: BaseException) -> bool:
    """Whether a failure may be gone at the next attempt."""
    status = http_status(error)
    if status is not None and 400 <= status < 500:
        return status in _PASSING_STATUSES
    return not isinstance(error, _LASTING)


def attempt(request: Callable[[], T], where: str) -> T | None:
    """Run a request, again after a passing failure; None where the object is missing.

    Parameters
    ----------
    request : callable
    where : str
        Store and key, for messages.

    Raises
    ------
    StoreError
        With the number of attempts and the last failure, which is its cause. What it says of
        addresses is without their queries (`public`).
    """
    for number in range(1, ATTEMPTS + 1):
        try:
            return request()
        except _ABSENT:
            return None
        except StoreError:
            raise
        except Exception as error:
            # clients raise their libraries' own errors; none is worth leaking
            if number < ATTEMPTS and passes(error):
                sleep(pause_s(number))
                continue
            raise StoreError(f"{where}: {_what_failed(error, number)}") from public_error(error)
    raise AssertionError


class _RemoteError(Exception):
    """In place of a client library's error that tells a query; with its HTTP status."""

    status: int | None = None


def public_error(error: Exception) -> Exception:
    """Give an error as it may be logged: itself, if neither it nor its causes tell a query."""
    seen: BaseException | None = error
    while seen is not None and public_text(str(seen)) == str(seen):
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    if seen is None:
        return error
    shown = _RemoteError(f"{type(error).__name__}: {public_text(str(error))}")
    shown.status = http_status(error)
    return shown


def _what_failed(error: Exception, attempts: int) -> str:
    if isinstance(error, PermissionError) or http_status(error) in (401, 403):
        return f"access denied: {public_text(str(error))}; check the credentials"
    often = "failed" if attempts == 1 else f"failed {attempts} times, last"
    return f"{often} with {type(error).__name__}: {public_text(str(error))}"
