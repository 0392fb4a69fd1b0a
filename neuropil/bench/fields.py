"""Settings of arms from text: parsed by the field's type, checked by its metadata, described for people.

Every problem of a call is found before any is reported, one line each.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from neuropil.bench.study import Config
from neuropil.errors import ConfigError, nearest

C = TypeVar("C", bound=Config)

_WORDS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class FieldRow(NamedTuple):
    """One setting, as `neuropil show` prints it."""

    name: str
    type: str  # in words, as in error lines
    default: Any
    allowed: str  # "0 to 1", "bptt, ottt, dsr"; empty when any value of the type will do
    help: str


class _Invalid(Exception):
    """A value does not fit; `expected` says what would, `hint` the nearest valid choice."""

    def __init__(self, expected: str, hint: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.hint = hint


def override(config: C, values: Mapping[str, Any]) -> C:
    """A copy of `config` with fields replaced; strings are parsed by the field's type.

    Integers, finite numbers, truth values (`true`, `false`), text, choices, comma-separated tuples, and
    `none` where the type allows it. Raises ConfigError naming every unknown or bad field, one line each.

    >>> from dataclasses import dataclass
    >>> from neuropil.bench import Config, setting
    >>> @dataclass(frozen=True)
    ... class Settings(Config):
    ...     lr: float = setting(0.1, "learning rate", low=0, high=1)
    ...     hidden: tuple[int, ...] = setting((400,), "units per layer", low=1)
    >>> override(Settings(), {"lr": "0.05", "hidden": "400,400"})
    Settings(lr=0.05, hidden=(400, 400))
    >>> override(Settings(), {"lr": "2"})
    Traceback (most recent call last):
    neuropil.errors.ConfigError: lr: expected a number from 0 to 1, got '2'
    """
    return next(iter(_apply({"": config}, values).values()))


def override_arms(arms: Mapping[str, C], values: Mapping[str, Any]) -> dict[str, C]:
    """Settings of all arms with fields replaced.

    `field` reaches every arm that has such a field, `arm.field` one arm and goes before `field`. Raises
    ConfigError as `override` does; a field that no arm has is unknown.
    """
    return _apply(arms, values)


def describe(config: Config) -> tuple[FieldRow, ...]:
    """The settings of a config, one row each, in the order of declaration."""
    hints = get_type_hints(type(config))
    return tuple(
        FieldRow(
            field.name,
            _expected(hints[field.name]),
            getattr(config, field.name),
            ", ".join(map(str, field.metadata.get("choices") or ())) or _range(field.metadata).strip(),
            field.metadata.get("help", ""),
        )
        for field in dataclasses.fields(config)
    )


def plain(config: Config) -> dict[str, Any]:
    """Settings as plain JSON values; tuples become lists."""
    return {
        field.name: list(value) if isinstance(value := getattr(config, field.name), tuple) else value
        for field in dataclasses.fields(config)
    }


def _apply(arms: Mapping[str, C], values: Mapping[str, Any]) -> dict[str, C]:
    changes: dict[str, dict[str, Any]] = {arm: {} for arm in arms}
    problems: list[str] = []
    # Fields of one arm come last, so that they win over fields of all arms.
    for path in sorted(values, key=lambda path: "." in path):
        arm, _, name = path.rpartition(".")
        if arm and arm not in arms:
            problems.append(f"{path}: no arm {arm!r}{nearest(arm, filter(None, arms))}")
            continue
        having = [a for a in ([arm] if arm else arms) if name in _names(arms[a])]
        if not having:
            known = {n for a in ([arm] if arm else arms) for n in _names(arms[a])}
            problems.append(f"{path}: no such setting{nearest(name, known)}")
        for a in having:
            try:
                changes[a][name] = _value(arms[a], name, values[path])
            except _Invalid as invalid:
                problem = f"{path}: expected {invalid.expected}, got {_shown(values[path])}{invalid.hint}"
                if problem not in problems:
                    problems.append(problem)
    if problems:
        raise ConfigError("\n".join(problems))
    return {arm: dataclasses.replace(config, **changes[arm]) for arm, config in arms.items()}


def _names(config: Config) -> list[str]:
    return [field.name for field in dataclasses.fields(config)]


def _value(config: Config, name: str, given: Any) -> Any:
    """Parse and check one value; _Invalid says what was expected."""
    hint = get_type_hints(type(config))[name]
    metadata = next(field.metadata for field in dataclasses.fields(config) if field.name == name)
    choices = metadata.get("choices") or ()
    expected = _listed(choices) if choices else _expected(hint) + _range(metadata)
    closest = _closest(given, choices or (get_args(hint) if get_origin(hint) is Literal else ()))
    try:
        value = _parse(given, hint)
    except (ValueError, TypeError, OverflowError):
        raise _Invalid(expected, closest) from None
    for item in value if isinstance(value, tuple) else (value,):
        if choices and item not in choices and value not in choices:
            raise _Invalid(expected, closest)
        if isinstance(item, int | float) and not _inside(item, metadata):
            raise _Invalid(expected)
    return value


def _parse(given: Any, hint: Any) -> Any:
    """A value of the type, from text or from JSON; ValueError or TypeError when it is none."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _parse_union(given, inner)
    if origin is Literal:
        for choice in inner:
            if given == choice or (isinstance(given, str) and given == str(choice)):
                return choice
        raise ValueError
    if origin is tuple:
        items = _items(given)
        kinds = inner[:1] * len(items) if inner[-1] is Ellipsis else inner
        return tuple(_parse(item, kind) for item, kind in zip(items, kinds, strict=True))
    parser = _PARSERS.get(hint)
    if parser is None:
        raise TypeError
    return parser(given)


def _parse_union(given: Any, members: tuple[Any, ...]) -> Any:
    if types.NoneType in members and (given is None or (isinstance(given, str) and given.lower() == "none")):
        return None
    for member in members:
        try:
            return _parse(given, member)
        except (ValueError, TypeError, OverflowError):
            continue
    raise ValueError


def _items(given: Any) -> list[Any]:
    if isinstance(given, str):
        if not given.strip():
            raise ValueError  # forgotten rather than meant; `()` is empty
        text = given.strip().removeprefix("(").removesuffix(")").strip().removesuffix(",")
        return [item.strip() for item in text.split(",")] if text else []
    if isinstance(given, list | tuple):
        return list(given)
    return [given]


def _integer(given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise ValueError
    return int(given)


def _number(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, str | int | float) or not math.isfinite(float(given)):
        raise ValueError
    return float(given)


def _truth(given: Any) -> bool:
    if isinstance(given, bool):
        return given
    if isinstance(given, str) and given.strip().lower() in _WORDS:
        return _WORDS[given.strip().lower()]
    raise ValueError


def _text(given: Any) -> str:
    if not isinstance(given, str) or "\0" in given:
        raise ValueError
    return given


def _nothing(given: Any) -> None:
    if given is not None:
        raise ValueError


_PARSERS: Mapping[Any, Callable[[Any], Any]] = {
    int: _integer, float: _number, bool: _truth, str: _text, types.NoneType: _nothing
}  # fmt: skip
_EXPECTED: Mapping[Any, str] = {
    int: "an integer", float: "a number", bool: "true or false", str: "text", types.NoneType: "none"
}  # fmt: skip
_PLURAL: Mapping[Any, str] = {int: "integers", float: "numbers", bool: "truth values", str: "words"}


def _expected(hint: Any) -> str:
    """The type in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(member) for member in inner)
    if origin is Literal:
        return _listed(inner)
    if origin is tuple:
        count = "" if inner[-1] is Ellipsis else f"{len(inner)} "
        return f"{count}{_PLURAL.get(inner[0], 'values')} separated by commas"
    return _EXPECTED.get(hint, getattr(hint, "__name__", str(hint)))


def _range(metadata: Mapping[str, Any]) -> str:
    low, high = metadata.get("low"), metadata.get("high")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    return f" of at most {high}" if high is not None else ""


def _inside(value: float, metadata: Mapping[str, Any]) -> bool:
    low, high = metadata.get("low"), metadata.get("high")
    return (low is None or value >= low) and (high is None or value <= high)


def _listed(choices: tuple[Any, ...]) -> str:
    """`a, b or c`, cut short where a line would become too long."""
    *others, last = map(str, choices)
    text = f"{', '.join(others)} or {last}" if others else last
    return text if len(text) <= 60 else text[:57] + "..."


def _closest(given: Any, choices: tuple[Any, ...]) -> str:
    names = [str(choice) for choice in choices]
    close = difflib.get_close_matches(str(given), names, n=1)
    return nearest(str(given), names) if close else ""


def _shown(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 40 else text[:37] + "..."
