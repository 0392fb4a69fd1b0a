"""Settings of arms from text: parse, check, describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from neuropil.bench.study import Config

C = TypeVar("C", bound=Config)


class FieldRow(NamedTuple):
    """One setting, as `show` prints it."""

    name: str
    type: str
    default: Any
    allowed: str  # "0 to 1", "bptt | ottt | dsr", "" when any
    help: str


def override(config: C, values: Mapping[str, Any]) -> C:
    """A copy of `config` with fields replaced; strings are parsed by the field's type. (being written)"""
    raise NotImplementedError


def override_arms(arms: Mapping[str, Config], values: Mapping[str, Any]) -> dict[str, Config]:
    """`field=value` reaches every arm that has the field, `arm.field=value` one arm. (being written)"""
    raise NotImplementedError


def describe(config: Config) -> tuple[FieldRow, ...]:
    """The settings of a config, one row each. (being written)"""
    raise NotImplementedError
