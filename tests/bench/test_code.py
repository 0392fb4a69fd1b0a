from __future__ import annotations

from pathlib import Path

import pytest

from neuropil.bench.code import changed_parts, hash_files, part_hashes, source_code_hash

FILES = {
    "pkg/__init__.py": "",
    "pkg/room/__init__.py": "from pkg.room.mechanism import Mechanism\nfrom pkg.room.neighbour import Neighbour\n",
    "pkg/room/mechanism.py": '"""Doc."""\nfrom pkg.core.kernel import scan\n\nclass Mechanism:\n    rate = 1\n',
    "pkg/room/neighbour.py": "class Neighbour:\n    pass\n",
    "pkg/core/__init__.py": "from .kernel import scan\nfrom .unused import nothing\n",
    "pkg/core/kernel.py": "import math\n\ndef scan(x):\n    return math.exp(x)\n",
    "pkg/core/unused.py": "nothing = 0\n",
    "pkg/core/typed.py": "Kind = int\n",
    "pkg/core/lazy.py": "value = 2\n",
    "pkg/bench/__init__.py": "from pkg.bench.runner import run\n",
    "pkg/studies/one.py": (
        "from typing import TYPE_CHECKING\n"
        "from pkg.room import Mechanism\n"
        "from pkg import core\n"
        "if TYPE_CHECKING:\n    from pkg.core.typed import Kind\n"
        "def trial():\n    from pkg.core.lazy import value\n    return core.scan(value), Mechanism.rate\n"
    ),
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "pkg"


def hashes(package: Path) -> dict:
    return hash_files(package / "studies/one.py", package / "room/mechanism.py", [], package)


def test_names_are_followed_to_the_files_that_define_them(package: Path) -> None:
    assert {name: each.part for name, each in hashes(package).items()} == {
        "pkg/core/kernel.py": "shared",
        "pkg/core/lazy.py": "shared",
        "pkg/room/mechanism.py": "mechanism",
        "pkg/studies/one.py": "study",
    }


def test_a_module_used_as_a_whole_brings_all_that_it_imports(package: Path) -> None:
    (package / "studies/one.py").write_text("from pkg import core\nhold = [core]\n")
    assert {"pkg/core/__init__.py", "pkg/core/unused.py"} <= set(hashes(package))


@pytest.mark.parametrize(
    ("name", "edit", "part"),
    [
        ("room/mechanism.py", ("rate = 1", "rate = 2"), "mechanism"),
        ("studies/one.py", ("return core", "return 0, core"), "study"),
        ("core/kernel.py", ("math.exp(x)", "math.exp(-x)"), "shared"),
    ],
)
def test_code_changes_are_seen_in_their_part_only(
    package: Path, name: str, edit: tuple[str, str], part: str
) -> None:
    before = hashes(package)
    path = package / name
    path.write_text(path.read_text().replace(*edit))
    after = hashes(package)
    differing = {p for p, h in part_hashes(after).items() if part_hashes(before)[p] != h}
    assert differing == {part} == changed_parts(before, package)


def test_comments_docstrings_and_layout_are_not_code(package: Path) -> None:
    before = hashes(package)
    for path in (package / name.removeprefix("pkg/") for name in before):
        text = path.read_text().replace('"""Doc."""\n', "").replace("\n\n", "\n\n\n# said\n")
        path.write_text('"""Another docstring."""\n' + text)
    assert changed_parts(before, package) == set()
    assert part_hashes(hashes(package)) == part_hashes(before)


def test_a_neighbour_in_the_room_changes_nothing(package: Path) -> None:
    before = hashes(package)
    (package / "room/third.py").write_text("class Third:\n    pass\n")
    with (package / "room/__init__.py").open("a") as file:
        file.write("from pkg.room.third import Third\n")
    assert hashes(package) == before


def test_a_file_that_is_gone_is_a_change(package: Path) -> None:
    before = hashes(package)
    (package / "core/kernel.py").unlink()
    assert changed_parts(before, package) == {"shared"}


def test_docstring_alone_and_pass_are_the_same_body() -> None:
    assert source_code_hash('def f():\n    """Doc."""\n') == source_code_hash("def f():\n    pass\n")
    assert source_code_hash("x = 'text'") != source_code_hash("x = 'other'")
