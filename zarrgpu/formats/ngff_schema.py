"""Rules of JSON values as small objects: what a value must be, and all that is wrong with it.

A table of fields (`ngff_fields`) is built of these. Each rule yields all problems of a value, so
that a document is judged in one pass. The semantics are those of JSON Schema 2020-12, by which the
OME writes its own: ``1.0`` is an integer, ``true`` no number, and equal members are duplicates.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeGuard

from zarrgpu.formats.document import shown

Location: TypeAlias = tuple[str | int, ...]

_MAX_DEPTH = 64
"""Deeper than any metadata; a document may nest transformations without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a metadata document.

    Attributes
    ----------
    location : tuple of (str | int)
        Where in the document, outermost first; empty for the whole document.
    kind : str
        ``"missing"``, ``"type"``, ``"value"`` or ``"unknown"``, as in `MetadataError`.
    message : str
    source : str
        Path or URL of the document; empty where the caller gave none.
    """

    location: Location
    kind: str
    message: str
    source: str = ""

    def __str__(self) -> str:
        where = ".".join(map(str, self.location))
        return f"{self.source + ': ' if self.source else ''}{where or 'document'} {self.message}"


Problems: TypeAlias = Iterator[Problem]


class Rule(Protocol):
    """What a value must be."""

    def problems(self, value: Any, at: Location) -> Problems:
        """Every problem of `value`, which lies `at` a place."""


def problem(at: Location, kind: str, message: str) -> Problem:
    """Make a problem; shorter to write in rules."""
    return Problem(location=at, kind=kind, message=message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A string: one of `choices`, or matching `pattern` as a whole and not `unlike`."""

    choices: tuple[str, ...] = ()
    pattern: str = ""
    unlike: str = ""
    least: int = 0

    def problems(self, value: Any, at: Location) -> Problems:
        """Every problem of `value`."""
        if not isinstance(value, str):
            yield problem(at, "type", f"expected a string, got {shown(value)}")
        elif self.choices and value not in self.choices:
            expected = ", ".join(self.choices)
            yield problem(at, "value", f"expected one of {expected}, got {shown(value)}")
        elif self.pattern and not re.fullmatch(self.pattern, value):
            yield problem(at, "value", f"expected to match {self.pattern}, got {shown(value)}")
        elif self.unlike and re.match(self.unlike, value):
            yield problem(at, "value", f"is not allowed: {shown(value)}")
        elif len(value) < self.least:
            yield problem(at, "value", "must not be empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A finite number that is at least `least` or above `above`, and at most `most`."""

    integer: bool = False
    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    choices: tuple[float, ...] = ()

    def problems(self, value: Any, at: Location) -> Problems:
        """Every problem of `value`."""
        noun = "an integer" if self.integer else "a number"
        if not is_number(value) or (self.integer and not is_whole(value)) or not _is_finite(value):
            yield problem(at, "type", f"expected {noun}, got {shown(value)}")
        elif self.choices and value not in self.choices:
            yield problem(at, "value", f"expected {self.choices[0]:g}, got {shown(value)}")
        elif not self.least <= value <= self.most or (value <= self.above > -math.inf):
            bounds = [f"of at least {self.least:g}"] * (self.least > -math.inf)
            bounds += [f"above {self.above:g}"] * (self.above > -math.inf)
            bounds += [f"of at most {self.most:g}"] * (self.most < math.inf)
            yield problem(
                at, "value", f"expected {noun} {' and '.join(bounds)}, got {shown(value)}"
            )


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def problems(self, value: Any, at: Location) -> Problems:
        """Every problem of `value`."""
        if not isinstance(value, bool):
            yield problem(at, "type", f"expected true or false, got {shown(value)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A list of `least` to `most` items that follow one rule; `distinct` allows no duplicates.

    `together` are checks of the list as a whole.
    """

    item: Rule
    least: int = 0
    most: int | None = None
    distinct: bool = False
    together: tuple[Callable[[list[Any], Location], Problems], ...] = ()

    def problems(self, value: Any, at: Location) -> Problems:
        """Every problem of `value`."""
        if not isinstance(value, list):
            yield problem(at, "type", f"expected a list, got {shown(value)}")
            return
        if len(value) < self.least:
            yield problem(at, "value", f"has {len(value)} items, expected at least {self.least}")
        if self.most is not None and len(value) > self.most:
            yield problem(at, "value", f"has {len(value)} items, expected at most {self.most}")
        seen: dict[Any, int] = {}
        for index, item in enumerate(value):
            yield from self.item.problems(item, (*at, index))
            if self.distinct:
                first = seen.setdefault(identity(item), index)
                if first != index:
                    yield problem((*at, index), "value", f"is the same as item {first}")
        for check in self.together:
            yield from check(value, at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """An object: some members are `required`, some have rules; others may be anything, or nothing.

    `one_of` are members of which exactly one must be there, `any_of` of which at least one.
    """

    rules: Mapping[str, Rule] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    closed: bool = False

    def problems(self, value: Any, at: Location) -> Problems:
        """Every problem of `value`."""
        if not isinstance(value, Mapping):
            yield problem(at, "type", f"expected an object, got {shown(value)}")
            return
        for name in self.required:
            if name not in value:
                yield problem((*at, name), "missing", "is missing")
        given = [name for name in (*self.one_of, *self.any_of) if name in value]
        if (self.one_of and len(given) != 1) or (self.any_of and not given):
            wanted = " or ".join(self.one_of or self.any_of)
            yield problem(at, "missing", f"needs {wanted}, got {' and '.join(given) or 'none'}")
        for name, member in value.items():
            if name in self.rules:
                yield from self.rules[name].problems(member, (*at, name))
            elif self.closed:
                yield problem((*at, name), "unknown", "is not a field of this object")


@dataclass(frozen=True, slots=True)
class ByType:
    """An object whose ``type`` says which rule it follows; `cases` may be filled in later."""

    cases: dict[str, Rule] = field(default_factory=dict)

    def problems(self, value: Any, at: Location) -> Problems:
        """Every problem of `value`."""
        if len(at) > _MAX_DEPTH:
            yield problem(at, "value", f"is nested more than {_MAX_DEPTH} deep")
        elif not isinstance(value, Mapping):
            yield problem(at, "type", f"expected an object, got {shown(value)}")
        elif "type" not in value:
            yield problem((*at, "type"), "missing", "is missing")
        else:
            kind = value["type"]
            rule = self.cases.get(kind) if isinstance(kind, str) else None
            if rule is None:
                message = f"expected one of {', '.join(self.cases)}, got {shown(kind)}"
                yield problem((*at, "type"), "value", message)
            else:
                yield from rule.problems(value, at)


@dataclass(frozen=True, slots=True)
class Both:
    """A value that follows two rules."""

    first: Rule
    second: Rule

    def problems(self, value: Any, at: Location) -> Problems:
        """Every problem of `value`; one that both rules have comes once."""
        yield from dict.fromkeys(
            (*self.first.problems(value, at), *self.second.problems(value, at))
        )


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a number; JSON's booleans are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_whole(value: float) -> bool:
    """Whether a number has no fraction."""
    return isinstance(value, int) or (math.isfinite(value) and value == int(value))


def identity(value: Any) -> Any:
    """Something hashable that two JSON values share where they are equal."""
    if isinstance(value, Mapping):
        return "object", frozenset((name, identity(member)) for name, member in value.items())
    if isinstance(value, list):
        return "list", tuple(map(identity, value))
    return isinstance(value, bool), value


def versioned(version: str, rules: Mapping[str, Rule]) -> dict[str, Rule]:
    """Rules of an object's members: up to 0.4 each may carry the version."""
    return {**rules, "version": Text(choices=(version,))} if version < "0.5" else dict(rules)


def recommended(version: str, *names: str, strict: bool) -> tuple[str, ...]:
    """Members that a strict reading requires; ``version`` is one where objects carry it."""
    return tuple(n for n in names if n != "version" or version < "0.5") if strict else ()


def _is_finite(value: float) -> bool:
    """Whether a number is one of JSON; integers beyond what a float holds are."""
    return isinstance(value, int) or math.isfinite(value)
