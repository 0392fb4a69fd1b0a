"""Every setting of every study, given nonsense, is refused in one line that names it, before any work."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import pytest

from neuropil.bench import catalogue, runner
from neuropil.bench.fields import override_arms
from neuropil.bench.provenance import data_of
from neuropil.cli.main import main
from neuropil.errors import NeuropilError

pytestmark = [pytest.mark.guarantee("R9"), pytest.mark.timeout(600)]


class Field(NamedTuple):
    """A setting of an arm of a study."""

    study: str
    arm: str
    name: str
    hint: Any
    field: dataclasses.Field[Any]
    default: Any


def studies() -> list[str]:
    known = (*catalogue.entries(), *catalogue.leagues())
    return [entry.id for entry in known if catalogue.study_path(entry.id).is_file()]


def every_field() -> list[Field]:
    return [
        Field(
            name,
            arm,
            field.name,
            get_type_hints(type(config))[field.name],
            field,
            getattr(config, field.name),
        )
        for name in studies()
        for arm, config in catalogue.load_study(name).arms.items()
        for field in dataclasses.fields(config)
    ]


FIELDS = every_field()


def kinds_of(hint: Any) -> set[Any]:
    """Plain types that a setting takes."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return set().union(*map(kinds_of, get_args(hint)))
    if origin is Literal:
        return {Literal}
    if origin is tuple:
        return kinds_of(get_args(hint)[0])
    return {hint}


def nonsense(field: Field) -> Iterator[tuple[str, str]]:
    """Values that a setting must refuse, each with its kind."""
    kinds, metadata = kinds_of(field.hint), field.field.metadata
    choices = metadata.get("choices") or (get_args(field.hint) if get_origin(field.hint) is Literal else ())
    if str in kinds and not choices:
        yield from FREE_TEXT(field)
        return
    yield "missing", ""
    yield "wrong type", "many,of,them" if get_origin(field.hint) is not tuple else "many"
    yield "wrong type", "{}"
    yield "NaN", "nan"
    yield "infinite", "inf"
    yield "infinite", "-1e999"
    if choices:
        yield "typo", f"{choices[0]}x"
        yield "typo", str(choices[-1])[:-1] + "q"
        return
    if {int, float} & kinds:
        yield "typo", f"{field.default}x"
        yield "wrong type", "true"
        if int in kinds:
            yield "wrong type", "1.5"
            yield "out of range", "9" * 5000
        if metadata.get("low") is not None:
            yield "out of range", str(metadata["low"] - 1)
        if metadata.get("high") is not None:
            yield "out of range", str(metadata["high"] + 1)


def FREE_TEXT(field: Field) -> Iterator[tuple[str, str]]:
    """A text without choices names something: what does not exist is refused by what looks it up."""
    yield "missing", ""
    yield "typo", f"{field.default}x"
    yield "typo", "x" * 3000
    yield "wrong type", "../../etc/passwd"
    yield "wrong type", "a\nb"


CASES = [
    pytest.param(field, kind, text, id=f"{field.study}-{field.arm}.{field.name}-{kind}-{text[:12]!r}")
    for field in FIELDS
    for kind, text in nonsense(field)
]


def checked(field: Field, text: str) -> None:
    """What a run does with settings before it makes anything."""
    study = catalogue.load_study(field.study)
    config = override_arms(study.arms, {f"{field.arm}.{field.name}": text})[field.arm]
    data_of(study, {field.arm: config})


def one_line_naming(message: str, name: str) -> bool:
    return name in message and len(message) <= 160 and len(message.splitlines()) == 1


@pytest.mark.parametrize(("field", "kind", "text"), CASES)
def test_nonsense_is_one_line_that_names_the_setting(
    field: Field, kind: str, text: str, record_property: Callable[[str, Any], None]
) -> None:
    with pytest.raises(NeuropilError) as caught:
        checked(field, text)
    assert one_line_naming(str(caught.value), field.name), str(caught.value)
    record_property("bad values", 1)


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f"{f.study}-{f.arm}.{f.name}")
def test_a_misspelt_setting_is_one_line_with_the_right_one(field: Field) -> None:
    study = catalogue.load_study(field.study)
    known = [f.name for f in dataclasses.fields(study.arms[field.arm])]
    for wrong in (f"{field.name}s", field.name[:-1] + "q", field.name.upper()):
        if wrong in known:
            continue
        with pytest.raises(NeuropilError) as caught:
            override_arms(study.arms, {f"{field.arm}.{wrong}": str(field.default)})
        assert one_line_naming(str(caught.value), wrong), str(caught.value)


def test_every_number_has_a_range_or_choices() -> None:
    """Without one, out of range means nothing."""
    open_ended = [
        f"{f.study}: {f.arm}.{f.name}"
        for f in FIELDS
        if {int, float} & kinds_of(f.hint)
        and f.field.metadata.get("low") is None
        and not f.field.metadata.get("choices")
    ]
    assert open_ended == []


@pytest.mark.parametrize("name", studies())
def test_the_command_says_so_and_leaves_with_2(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runner, "compute_trials", lambda *_, **__: pytest.fail("work was begun"))
    by_name = {f.name: f for f in FIELDS if f.study == name}
    for field in by_name.values():
        for kind, text in nonsense(field):
            capfd.readouterr()
            with pytest.raises(SystemExit) as left:
                main(["run", name, "--scale", "smoke", "--set", f"{field.name}={text}"])
            out, err = capfd.readouterr()
            assert left.value.code == 2 and out == "", (field.name, kind, err)
            assert one_line_naming(err.removeprefix("neuropil: ").strip(), field.name), err
            assert not any(path.is_file() for path in tmp_path.rglob("*")), "a file was written"
