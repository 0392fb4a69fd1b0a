from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuropil.bench.fields import describe, override, override_arms, plain
from neuropil.errors import ConfigError
from tests.bench.tiny_study import Other, Tiny

BAD = {
    "shift": ["", "x", "nan", "inf", "-inf", "2", "-1.01", "1e999", "true"],
    "draws": ["", "1.5", "x", "0", "1001", "nan", "true"],
    "mode": ["", "cal", "nan", "1"],
    "sleep": ["-1", "61", "nan", "none"],
    "layers": ["", "x", "1,x", "0", "3,0", "1.5", "nan"],
    "limit": ["x", "nan", "inf", ""],
    "noisy": ["", "maybe", "2", "none"],
}


def test_every_field_kind_is_tried() -> None:
    assert set(BAD) == {field.name for field in dataclasses.fields(Tiny)}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_bad_value_is_one_short_line_naming_the_field(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(Tiny(), {name: text})
    message = str(caught.value)
    assert message.startswith(f"{name}: expected ") and repr(text) in message
    assert "\n" not in message and len(message) <= 160


def test_all_problems_of_a_call_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        override(Tiny(), {"shfit": "0.1", "draws": "many", "mode": "clam", "shift": "0.5"})
    lines = str(caught.value).splitlines()
    assert lines == [
        "shfit: no such setting; did you mean 'shift'?",
        "draws: expected an integer from 1 to 1000, got 'many'",
        "mode: expected calm, raise, die or empty, got 'clam'; did you mean 'calm'?",
    ]


@given(
    shift=st.floats(-1, 1),
    draws=st.integers(1, 1000),
    layers=st.lists(st.integers(1, 10**6), max_size=5),
    limit=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    noisy=st.booleans(),
)
def test_text_and_json_give_back_what_they_were_made_of(
    shift: float, draws: int, layers: list[int], limit: float | None, noisy: bool
) -> None:
    config = Tiny(shift=shift, draws=draws, layers=tuple(layers), limit=limit, noisy=noisy)
    text = {
        name: ",".join(map(str, v)) or "()" if isinstance(v, list) else str(v) for name, v in plain(config).items()
    }
    assert override(Tiny(), text) == config
    assert override(Tiny(), plain(config)) == config


@given(st.text(max_size=60))
def test_any_text_is_a_finite_number_in_range_or_a_config_error(text: str) -> None:
    try:
        shift = override(Tiny(), {"shift": text}).shift
    except ConfigError as error:
        assert len(str(error)) <= 160 and len(str(error).splitlines()) == 1
    else:
        assert math.isfinite(shift) and -1 <= shift <= 1


def test_a_field_reaches_every_arm_that_has_it_and_one_arm_wins() -> None:
    arms = {"tiny": Tiny(), "other": Other()}
    changed = override_arms(arms, {"other.shift": "0.7", "shift": "0.2", "strength": "3"})
    assert changed == {"tiny": Tiny(shift=0.2), "other": Other(shift=0.7, strength=3.0)}
    for path, hint in {"tiy.shift": "'tiny'", "other.drws": "choose from", "strenth": "'strength'"}.items():
        with pytest.raises(ConfigError, match=hint):
            override_arms(arms, {path: "1"})


def test_describe_tells_type_range_choices_and_help() -> None:
    rows = {row.name: row for row in describe(Tiny())}
    assert rows["shift"][1:] == ("a number", 0.1, "from -1 to 1", "added to every draw")
    assert rows["mode"].type == "calm, raise, die or empty"
    assert rows["layers"].type == "integers separated by commas"
    assert rows["limit"].type == "a number or none"
