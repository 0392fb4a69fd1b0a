"""Static hashes of the code that a trial runs: which files it imports, and what they compute.

Nothing is imported: imports are read from the syntax tree. A name taken from a package is followed through
the package's re-exports to the file that defines it, so that a new mechanism in a room leaves its neighbours'
hashes alone. Hashes are blind to comments, docstrings and layout.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

Part = Literal["study", "mechanism", "shared"]
PARTS: tuple[Part, ...] = ("study", "mechanism", "shared")

# The bench decides how trials are run and judged, not what they compute; errors only say what went wrong.
_OUTSIDE = ("neuropil.bench", "neuropil.errors")


class FileHash(NamedTuple):
    """A file of the trial's code."""

    part: Part
    bytes: str  # of the file as it is
    code: str  # of what it computes


class Reference(NamedTuple):
    """An import: a module, and the path of names taken from it (none: the module as a whole)."""

    module: str
    names: tuple[str, ...] = ()


def bytes_hash(path: Path) -> str:
    """Hash of a file as it is; 16 hexadecimal digits."""
    return _digest(path.read_bytes())


def code_hash(path: Path) -> str:
    """Hash of what a file computes: its syntax without comments and docstrings; 16 hexadecimal digits."""
    return _code_hash(path.read_bytes())


def source_code_hash(source: str) -> str:
    """As `code_hash`, of source text.

    >>> source_code_hash("x = 1  # one") == source_code_hash("x = (1)")
    True
    >>> source_code_hash("x = 1") == source_code_hash("x = 2")
    False
    """
    return _code_hash(source.encode())


def hash_files(
    study: Path | None, mechanism: Path | None, others: Iterable[Path], package: Path
) -> dict[str, FileHash]:
    """Hashes of the given files and of all that they import from `package`, by path within its parent.

    `study` and `mechanism` are the two parts whose change makes evidence stale; the rest is shared.
    """
    parts: dict[Path, Part] = {}
    if mechanism is not None:
        parts[mechanism] = "mechanism"
    if study is not None:
        parts[study] = "study"
    waiting = [*parts, *others]
    found: dict[str, FileHash] = {}
    while waiting:
        path = waiting.pop()
        name = _relative(path, package)
        if name not in found and path.is_file():
            source = path.read_bytes()
            found[name] = FileHash(parts.get(path, "shared"), _digest(source), _code_hash(source))
            waiting += _imported(path, package)
    return dict(sorted(found.items()))


def part_hashes(files: Mapping[str, FileHash]) -> dict[Part, str]:
    """One hash per part, over the code of its files; a part without files is left out."""
    lines: dict[Part, str] = {}
    for name in sorted(files):
        part, _, code = files[name]
        lines[part] = lines.get(part, "") + f"{name} {code}\n"
    return {part: _digest(lines[part].encode()) for part in PARTS if part in lines}


def changed_parts(files: Mapping[str, FileHash], package: Path) -> set[Part]:
    """Parts of which a file computes something else than when it was hashed, or is gone."""
    changed = set()
    for name, (part, as_bytes, as_code) in files.items():
        path = package.parent / name
        if not path.is_file() or (bytes_hash(path) != as_bytes and code_hash(path) != as_code):
            changed.add(part)
    return changed


def references(source: bytes, module: str, *, is_package: bool) -> Iterator[Reference]:
    """What a file imports, wherever in the file; imports for type checking only are left out.

    A module bound to a name and used as `name.attribute` only counts as the names used.
    """
    attributes: dict[str, set[tuple[str, ...]]] = {}
    whole: set[str] = set()
    imports: list[ast.ImportFrom] = []
    for node in _runtime_nodes(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            attributes.setdefault(node.value.id, set()).add((node.attr,))
            node.value.id = ""  # seen: what is left of this name is a use of the module as a whole
        elif isinstance(node, ast.Name):
            whole.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            imports.append(node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield Reference(alias.name)
    for node in imports:
        base = _absolute(node, module, is_package)
        for alias in node.names:
            bound = alias.asname or alias.name
            for used in sorted(attributes.get(bound, {()}) if bound not in whole else {()}):
                yield Reference(base, (alias.name, *used))


def _imported(path: Path, package: Path) -> list[Path]:
    """Files of the package that a file imports."""
    is_package = path.name == "__init__.py"
    inside = path.is_relative_to(package)
    parts = path.relative_to(package.parent).with_suffix("").parts if inside else (path.stem,)
    module = ".".join(parts[:-1] if is_package else parts)
    files: list[Path] = []
    for reference in references(path.read_bytes(), module, is_package=is_package):
        if reference.module.split(".")[0] == package.name:
            files += _resolve(reference, package)
    return files


def _resolve(reference: Reference, package: Path) -> list[Path]:
    """Files that define what a reference names."""
    module, names = reference
    if any(module == outside or module.startswith(f"{outside}.") for outside in _OUTSIDE):
        return []
    file = _module_file(module, package)
    if not names:
        return [file] if file else []
    name, *rest = names
    submodule = _module_file(f"{module}.{name}", package)
    if submodule:
        inner = tuple(rest) if submodule.name == "__init__.py" else ()
        return _resolve(Reference(f"{module}.{name}", inner), package)
    if file and file.name == "__init__.py":
        source = _exports(file.read_bytes(), module).get(name)
        if source is not None:
            return _resolve(Reference(source.module, (*source.names, *rest)), package)
    return [file] if file else []


@lru_cache(maxsize=256)
def _exports(source: bytes, module: str) -> dict[str, Reference]:
    """Where each name that a package re-exports comes from."""
    return {
        alias.asname or alias.name: Reference(_absolute(node, module, is_package=True), (alias.name,))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _module_file(module: str, package: Path) -> Path | None:
    place = package.parent.joinpath(*module.split("."))
    for file in (place.with_name(place.name + ".py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parents = module.split(".")
    kept = parents[: len(parents) - node.level + is_package]
    return ".".join([*kept, node.module] if node.module else kept)


def _runtime_nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node, parents before children, without blocks under TYPE_CHECKING."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in (
            getattr(node.test, "id", ""),
            getattr(node.test, "attr", ""),
        ):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


@lru_cache(maxsize=1024)
def _code_hash(source: bytes) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
            if not node.body and not isinstance(node, ast.Module):
                node.body.append(ast.Pass())
    return _digest(ast.unparse(tree).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _relative(path: Path, package: Path) -> str:
    return path.relative_to(package.parent).as_posix() if path.is_relative_to(package.parent) else path.name
