"""A first life that is killed: `python -m neuropil.studies.together._killed DIRECTORY`, with checkpoints left there.

It is a process of its own, for a process that gets SIGKILL leaves no time to tidy up, and that is what is tried.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neuropil.bench.executor import Job
from neuropil.bench.fields import override
from neuropil.bench.study import Outcome, Trial
from neuropil.bench.workers import compute
from neuropil.data.batching import n_batches
from neuropil.errors import NeuropilError
from neuropil.studies.together._being import Being, LifeSetting, born, trainer_of
from neuropil.training.checkpoint import checkpoints

LIFE = "life.json"
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # where there is no SIGKILL, any signal sent ends at once
_PACKAGE = Path(__file__).resolve().parents[3]


def steps_until_death(being: Being) -> int:
    """Steps that the first life makes."""
    steps = sum(n_batches(task.train, being.config.batch_size) for task in being.stream)
    return max(1, int(being.config.killed_after * steps))


def live_and_be_killed(being: Being) -> int:
    """Let another process live this life up to its death; the steps that were made and not saved."""
    trial = being.trial
    life = {"trial": {**asdict(trial), "config": asdict(being.config)}, "has": sorted(being.has)}
    (being.place / LIFE).write_text(json.dumps(life))
    paths = filter(None, (str(_PACKAGE), os.environ.get("PYTHONPATH")))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "neuropil.studies.together._killed", str(being.place)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    saved = checkpoints(being.place)
    if done.returncode in (0, 1):
        said = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise NeuropilError(f"the life that was to be killed ended with {done.returncode} instead: {said}")
    return steps_until_death(being) - (int(saved[-1].name.rpartition("-")[2]) if saved else 0)


def live(trial: Trial) -> Outcome:
    """Learn from the beginning, until death; only a life that escapes it gives an outcome."""
    place = Path(sys.argv[1])
    being = born(trial, frozenset(json.loads((place / LIFE).read_text())["has"]), place)
    trainer = trainer_of(being, checkpoints=True)
    left = itertools.count(steps_until_death(being) - 1, -1)

    def die(*_: Any) -> None:
        if not next(left):
            os.kill(os.getpid(), _KILL)

    trainer.learner.optimizer.register_step_post_hook(die)  # type: ignore[union-attr]
    trainer.fit(being.stream, evaluate_on=trial.evaluate_on)
    return Outcome({})


def main() -> int:
    """Compute the trial in the surroundings that every trial has."""
    written: dict[str, Any] = json.loads((Path(sys.argv[1]) / LIFE).read_text())["trial"]
    trial = Trial(**{**written, "config": override(LifeSetting(), written["config"])})
    reply = compute(Job("killed", trial, live))
    sys.stderr.write(reply.trace or "it was not killed")
    return 1


if __name__ == "__main__":
    sys.exit(main())
