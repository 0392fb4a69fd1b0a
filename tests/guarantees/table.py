"""The guarantees: what each says, and which tests elsewhere hold it too."""

from __future__ import annotations

import os
from typing import NamedTuple


class Guarantee(NamedTuple):
    """A promise, and test files outside this directory that prove part of it, as `path` or `path::name`."""

    title: str
    statement: str
    proofs: tuple[str, ...] = ()


LONG = os.environ.get("NEUROPIL_LONG") == "1"  # the long-run counts instead of the quick ones


def count(quick: int, long: int) -> int:
    """How many cases to try in this run."""
    return long if LONG else quick


GUARANTEES = {
    "R1": Guarantee(
        "A kill loses nothing",
        "`kill -9` at any instant leaves checkpoints, or a run directory, from which going on ends in the same bits "
        "as never having been stopped: weights, optimizer, plugins, random state, losses, metrics. Same machine, "
        "same version of torch, same number of threads.",
        ("tests/bench/test_runner.py::test_killed_in_mid_run", "tests/training/test_resume.py"),
    ),
    "R2": Guarantee(
        "Power loss leaves the last save or the one before",
        "A save is written beside its place, synced, renamed, and its directory is synced; only then old "
        "ones go. Wherever power fails, and whichever unsynced writes were lost or torn, a whole save is found; "
        "one that was reported as saved is never lost.",
        (
            "tests/bench/test_store.py::test_a_write_is_synced",
            "tests/bench/test_store.py::test_a_failed_write",
        ),
    ),
    "R3": Guarantee(
        "Damage is told",
        "A flipped bit, a cut, a missing, swapped or foreign file in a checkpoint, a stored trial or a run is told in "
        "one line; training falls back to the checkpoint before, the bench computes the trial again.",
        (
            "tests/bench/test_store.py",
            "tests/bench/test_runner.py::test_damaged_trials",
            "tests/training/test_checkpoint.py",
        ),
    ),
    "R4": Guarantee(
        "Data cannot run code",
        "No pickle, eval, exec or shell is reachable from anything that reads a file; hostile files end in one line.",
        ("tests/test_package.py::test_nothing_banned", "tests/test_package.py::test_the_ban"),
    ),
    "R5": Guarantee(
        "Names stay inside",
        "Names of arms, systems, data sets and members of archives never lead to a file outside the place that they "
        "name something in.",
    ),
    "R6": Guarantee(
        "No network unless asked",
        "Importing, training, running a study and writing its report open no connection and no listening socket, in "
        "the process and in its workers. `neuropil serve` listens on this machine only.",
        ("tests/bench/test_serve.py",),
    ),
    "R7": Guarantee(
        "Reports are inert and offline",
        "A report is a file that loads nothing from elsewhere, shows hostile names as text and can be read without "
        "JavaScript.",
        (
            "tests/bench/test_report.py",
            "tests/bench/test_report_browser.py",
            "tests/bench/test_report_terminal.py",
            "tests/bench/test_site.py",
        ),
    ),
    "R8": Guarantee(
        "A seed means the same everywhere",
        "The same setting and seed give the same bits in another process, after other trials, in another order, "
        "with another hash seed, directory, time zone and language, and when resumed. A trial runs on one thread; "
        "across machines and versions of torch nothing is promised.",
        (
            "tests/bench/test_runner.py::test_bits_do_not_depend",
            "tests/bench/test_runner.py::test_in_process_trials_leave",
            "tests/contracts/test_source.py::test_same_seed",
            "tests/contracts/test_source.py::test_random_state",
        ),
    ),
    "R9": Guarantee(
        "A bad setting is one line that names it",
        "Every setting of every study, given a value of the wrong type, NaN, infinite, out of range, empty or "
        "misspelt, is refused before any work with one line of at most 160 characters that names it, and exit code 2.",
        ("tests/bench/test_fields.py", "tests/cli/test_main.py::test_bad_input"),
    ),
    "R10": Guarantee(
        "NaN stops at once",
        "NaN or infinity in inputs, targets or weights stops training at the step that meets it, before the optimizer "
        "moves, and says where. A weight that no answer depends on, as behind a ReLU, is found before it is saved: the "
        "last checkpoint is always a good one.",
    ),
    "R11": Guarantee(
        "Numerics are checked, not trusted",
        "Derivatives are held against finite differences in double precision, mechanisms against closed forms and "
        "independent references, sequences against steps, compiled kernels against plain torch.",
        ("tests/kernels/", "tests/nn/", "tests/contracts/test_module.py", "tests/continual/"),
    ),
    "R12": Guarantee(
        "Formats carry their version",
        "What an earlier release wrote is read; what a newer one wrote is refused in one line. Public names and the "
        "keys of state dicts do not vanish unnoticed.",
    ),
    "R13": Guarantee(
        "Resources are bounded, ends are clean",
        "Memory stays flat over long training; a full disk and a read-only directory end in one line and keep the last "
        "good checkpoint; SIGINT and SIGTERM end in time, with a checkpoint and without workers left behind.",
        (
            "tests/bench/test_runner.py::test_stopped_by_a_signal",
            "tests/cli/test_whole_runs.py::test_a_stopped_run",
        ),
    ),
    "R14": Guarantee(
        "Two processes do not harm each other",
        "Of two processes on one run directory one works and the other is told; the lock of a dead process is free; "
        "a reader beside a writer finds whole files only.",
        ("tests/bench/test_store.py::test_one_process_at_a_time",),
    ),
    "R15": Guarantee(
        "A small and honest package",
        "Importing it changes nothing in the process; it needs at most seven packages; two builds give the same wheel, "
        "to the bit, and nothing compiled is in it.",
        ("tests/test_package.py::test_importing", "tests/test_package.py::test_what_answers"),
    ),
}


def guarantees_of(node: str, marked: tuple[str, ...] = ()) -> list[str]:
    """Guarantees that the test of a node id belongs to: those it is marked with and those that name it."""
    named = [key for key, each in GUARANTEES.items() if any(node.startswith(proof) for proof in each.proofs)]
    return sorted({*marked, *named}, key=lambda key: int(key[1:]))
