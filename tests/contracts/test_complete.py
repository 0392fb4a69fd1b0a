"""Nothing that the catalogue counts as built may be missing its test, its study or its export."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = json.loads((ROOT / "neuropil" / "catalogue.json").read_text())


def module_of(system: dict[str, str]) -> str:
    return system["id"].replace("-", "_")


def is_built(system: dict[str, str]) -> bool:
    return (ROOT / "neuropil" / system["room"] / f"{module_of(system)}.py").exists()


@pytest.mark.parametrize("system", [s for s in CATALOGUE if is_built(s)], ids=lambda s: s["id"])
def test_built_system_has_test_study_and_export(system: dict[str, str]) -> None:
    room, name = system["room"], module_of(system)
    test = ROOT / "tests" / room / f"test_{name}.py"
    assert test.exists(), f"{system['id']}: {test.relative_to(ROOT)} is missing"
    assert "PARTS" in assigned_names(test), f"{system['id']}: {test.name} declares no PARTS"
    study = ROOT / "neuropil" / "studies" / room / f"{name}.py"
    assert study.exists(), f"{system['id']}: {study.relative_to(ROOT)} is missing"
    exported = exports(ROOT / "neuropil" / room / "__init__.py").get(f"neuropil.{room}.{name}", set())
    assert exported, f"{system['id']}: neuropil/{room}/__init__.py exports nothing from {name}.py"
    assert name not in exported, f"{system['id']}: the public name {name!r} hides the module of that name"


def test_ids_are_unique() -> None:
    ids = [system["id"] for system in CATALOGUE]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("package", sorted(ROOT.glob("neuropil/*/__init__.py")), ids=lambda p: p.parent.name)
def test_no_public_name_hides_a_module(package: Path) -> None:
    modules = {path.stem for path in package.parent.glob("*.py")}
    itself = f"neuropil.{package.parent.name}"  # importing a module under its own name hides nothing
    names = {name for source, names in exports(package).items() if source != itself for name in names}
    assert not names & modules


def assigned_names(path: Path) -> set[str]:
    targets: list[ast.expr] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AnnAssign):
            targets.append(node.target)
    return {target.id for target in targets if isinstance(target, ast.Name)}


def exports(path: Path) -> dict[str, set[str]]:
    """Public names that a package's `__init__` takes from each module."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(path.read_text())) if path.exists() else ():
        if isinstance(node, ast.ImportFrom) and node.module:
            found.setdefault(node.module, set()).update(alias.asname or alias.name for alias in node.names)
    return found
