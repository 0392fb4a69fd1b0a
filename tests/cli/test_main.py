"""The command as a whole: what it answers fast, how it tells what went wrong, how it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.exceptions import Exit

from neuropil import __version__, errors
from neuropil.cli import main as entry
from neuropil.cli.main import COMMANDS, verdict
from neuropil.cli.session import Terminated
from neuropil.errors import NeuropilError, UnknownNameError
from tests.cli.conftest import Call

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NeuropilError)]
FAILED = {"NeuropilError", "NonFiniteError", "CheckpointError"}


def test_list_imports_no_torch() -> None:
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules, 'numpy' in sys.modules, file=sys.stderr))\n"
        "from neuropil.cli.main import main\n"
        "main(['list', '--json'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False False"
    assert done.stdout.startswith("[{")


@pytest.mark.parametrize("words", [["-m", "neuropil"], ["-c", "from neuropil.cli.main import main; main()"]])
def test_both_ways_in_answer(words: list[str]) -> None:
    done = subprocess.run([sys.executable, *words, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"neuropil {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(call: Call, name: str) -> None:
    answer = call(name, "--help")
    assert answer.code == 0
    assert f"Usage: neuropil {name}" in answer.out


def test_help_names_every_command(call: Call) -> None:
    out = call("--help").out
    assert all(f"\n  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lst"], "unknown command 'lst'; did you mean 'list'?"),
        (["list", "--jsn"], "Did you mean '--json'?"),
        (["list", "--room", "contnual"], "unknown room 'contnual'; did you mean 'continual'?"),
        (["show"], "Missing argument 'ID'"),
        (["show", "alhpa"], "unknown id 'alhpa'; did you mean 'alpha'?"),
        (["run", "alhpa"], "unknown id 'alhpa'; did you mean 'alpha'?"),
        (["run", "gamma"], "gamma: planned, not built yet"),
        (["tune", "alpha", "--arms", "alhpa"], "study alpha: unknown arm 'alhpa'; did you mean 'alpha'?"),
        (
            ["run", "alpha", "--arms", "finetun"],
            "study alpha: unknown arm 'finetun'; did you mean 'finetune'?",
        ),
        (["run", "alpha", "--arms", ","], "expected names such as a,b, got ','"),
        (["run", "alpha", "--scale", "laptob"], "'laptob' is not one of 'smoke', 'laptop', 'paper'"),
        (["run", "alpha", "--seeds", "0,x"], "expected whole numbers such as 0,1,2, got '0,x'"),
        (["run", "alpha", "--seeds", "1,1"], "each seed counts once, got '1,1'"),
        (["run", "alpha", "--n-seeds", "0"], "0 is not in the range x>=1"),
        (["run", "alpha", "--seeds", "0", "--n-seeds", "1"], "--seeds and --n-seeds exclude each other"),
        (["run", "alpha", "--set", "lr"], "--set expects field=value, got 'lr'"),
        (["run", "alpha", "--set", "=1"], "--set expects field=value, got '=1'"),
        (["run", "alpha", "--jobs", "many"], "'many' is not a valid integer"),
        (["resume", "nowhere"], "nowhere: not a run directory, it has no run.json"),
        (["report"], "runs: not a run directory, it has no run.json"),
        (["report", "alhpa"], "'alhpa' is neither a run nor a system; did you mean 'alpha'?"),
        (["compare", "alpha"], "compare expects at least two names, got alpha"),
        (
            ["compare", "alpha", "fintune"],
            "no system and no arm is called 'fintune'; did you mean 'finetune'?",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_2(bench: Path, call: Call, words: list[str], said: str) -> None:
    answer = call(*words)
    assert answer.code == 2
    assert answer.out == ""
    assert len(answer.lines) == 1
    assert answer.lines[0].startswith("neuropil: ")
    assert said in answer.lines[0]
    assert not any((bench / "work").rglob("runs/*"))  # no run directory was left


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_of_ours_has_an_exit_code_and_its_own_words(kind: type[NeuropilError]) -> None:
    code, said = verdict(kind("what was wrong\n   and more"))
    assert code == (1 if kind.__name__ in FAILED else 2)
    assert said == "what was wrong\nneuropil: and more"


def aborted(cause: BaseException) -> click.Abort:
    abort = click.Abort()
    abort.__cause__ = cause
    return abort


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (aborted(KeyboardInterrupt("kept")), 130, "interrupted; kept"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (aborted(Terminated("kept")), 143, "terminated; kept"),
        (OSError(28, "No space left on device", "x.json"), 1, "no space left on device: x.json"),
        (PermissionError(13, "Permission denied"), 1, "permission denied"),
        (RuntimeError("one\ntwo"), 1, "unexpected RuntimeError: one two (--debug shows where)"),
        (SystemExit(3), 3, ""),
        (Exit(0), 0, ""),
        (click.BadParameter("too\nlarge"), 2, "too large"),
    ],
)
def test_exit_codes(error: BaseException, code: int, said: str) -> None:
    assert verdict(error)[0] == code
    assert verdict(error)[1].endswith(said)


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def command(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(entry.neuropil, "main", command)


def test_a_bug_shows_no_traceback(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    raising(monkeypatch, ZeroDivisionError("boom"))
    answer = call("list")
    assert answer.code == 1
    assert answer.lines == ["neuropil: unexpected ZeroDivisionError: boom (--debug shows where)"]


@pytest.mark.parametrize("words", [("--debug", "list"), ("list", "--debug")])
def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, call: Call, words: tuple[str, ...]
) -> None:
    raising(monkeypatch, UnknownNameError("no such thing"))
    answer = call(*words)
    assert answer.code == 2
    assert answer.lines[0] == "Traceback (most recent call last):"
    assert "UnknownNameError: no such thing" in answer.lines[-1]


WAITS = """
import sys, time
from neuropil.cli import listing, session
from neuropil.cli.main import main

def wait(*_, **__):
    with session.resumable("go on with: neuropil resume runs/x"):
        print("ready", flush=True)
        time.sleep(60)

listing.command.callback = wait
main(["list"])
"""


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_it_in_one_line_that_says_how_to_go_on(number: int, code: int, word: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=250)
    assert process.returncode == code
    said = f"neuropil: {word}; finished trials are kept; go on with: neuropil resume runs/x"
    assert err.split("\n") in ([said, ""], ["", said, ""])


def test_sigterm_is_given_back(call: Call) -> None:
    before = signal.getsignal(signal.SIGTERM)
    call("--version")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m neuropil list | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
