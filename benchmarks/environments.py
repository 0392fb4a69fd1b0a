"""The environments that peers live in, apart from ours: `.venv-peers` and `.venv-brian2`.

Pins are in `peers.txt`, one section per environment. A stamp of that text tells whether an environment is ready.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
PINS = Path(__file__).with_name("peers.txt")

# Peers import these for data sets, plots, logs and other methods; they are large, or want another build of torch.
_STUBBED = (
    "torchvision", "cv2", "skimage", "ale_py", "tensorboardX", "torchmetrics", "wandb", "gdown", "pytorchcv", "GPUtil",
    "tensorboard", "qpsolvers", "quadprog",
)  # fmt: skip
_STUB = '''"""Stands in for a package that a peer imports and the benchmarks do not use."""
import importlib
import importlib.abc
import importlib.machinery
import sys
import types


class _Anything(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _class(name)


def _class(name):
    return _Anything(name, (), {"__init__": lambda self, *given, **named: None, "__call__": lambda self, x=None: x})


class _Module(types.ModuleType):
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _class(name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.startswith(__name__ + ".") else None

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.append(_Finder())
__version__ = "9.0"  # recent enough for whoever asks


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _class(name) if name[0].isupper() else importlib.import_module(f"{__name__}.{name}")
'''


class AbsentError(Exception):
    """An environment is not there and was not asked for."""


def python(environment: str, *, prepare: bool, say: Callable[[str], None] = print) -> Path:
    """The interpreter of an environment, which is made first if it is absent or out of date and `prepare`."""
    folder = ROOT / f".venv-{environment}"
    path = folder / "bin" / "python"
    stamp, pins = folder / ".ready", "\n".join([*sections()[environment], _STUB])
    wanted = hashlib.sha256(pins.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return path
    if not prepare:
        raise AbsentError(f"{folder.name} is not prepared; run: make peers")
    say(f"preparing {folder.name}")
    _install(environment, folder)
    stamp.write_text(wanted)
    return path


def sections() -> dict[str, list[str]]:
    """Requirements by environment."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for raw in PINS.read_text().splitlines():
        line = raw.partition("#")[0].strip()
        if line.startswith("["):
            current = found.setdefault(line.strip("[]"), [])
        elif line:
            current.append(line)
    return found


def _install(environment: str, folder: Path) -> None:
    path = folder / "bin" / "python"
    if not path.exists():
        _run(sys.executable, "-m", "venv", str(folder))
    pip = (str(path), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    # Everything is pinned, so what the peers ask for (torchvision, older versions of each other's) is not asked.
    _run(*pip, "--no-deps", *sections()[environment])
    if environment == "peers":
        purelib = subprocess.check_output(
            [str(path), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        )
        for name in _STUBBED:
            stub = Path(purelib.strip()) / name
            stub.mkdir(exist_ok=True)
            (stub / "__init__.py").write_text(_STUB)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise AbsentError(f"{' '.join(command[:5])} ... failed: {last[0]}")


if __name__ == "__main__":
    for name in sections():
        python(name, prepare=True)
