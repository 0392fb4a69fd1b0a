"""The same setting and seed give the same bits wherever and whenever they are run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.guarantees.lives import FAMILIES, live
from tests.guarantees.nursery import Nursery
from tests.guarantees.table import LONG

pytestmark = [pytest.mark.guarantee("R8"), pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "tasks": "2", "train_samples": "128", "validation_samples": "120", "test_samples": "120", "hidden": "24,24",
    "time_steps": "3", "batch_size": "32",
}  # fmt: skip


def trials(order: str) -> dict[str, Any]:
    """What every arm of every study answers on a small setting, computed one after the other in this process."""
    from neuropil.bench import catalogue
    from neuropil.bench.fields import override_arms
    from neuropil.bench.study import Trial
    from neuropil.bench.workers import Job, compute

    found = {}
    for entry in (*catalogue.entries(), *catalogue.leagues()):
        if not catalogue.study_path(entry.id).is_file():
            continue
        study = catalogue.load_study(entry.id)
        configs = override_arms(study.arms, study.scales.get("smoke", {}))
        known = {name: value for config in configs.values() for name, value in vars(config).items()}
        lowest = {
            field.name: field.metadata.get("low") for config in configs.values() for field in fields(config)
        }
        small = {name: value for name, value in SMALL.items() if name in known}
        small = {
            name: str(max(int(value), lowest[name])) if lowest[name] and value.isdigit() else value
            for name, value in small.items()
        }
        if isinstance(known.get("hidden"), int):  # a network of one width
            small["hidden"] = "24"
        configs = override_arms(configs, small)
        arms = list(configs) if order == "forward" else list(reversed(configs))
        for arm in arms:
            reply = compute(Job("key", Trial(arm, configs[arm], 3, "smoke"), study.trial))
            assert reply.record is not None, reply.trace
            found[f"{study.id}.{arm}"] = [reply.record.metrics, reply.record.curves, reply.record.arrays]
    return found


def elsewhere(place: Path, order: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.guarantees.test_seeds", order],
        capture_output=True, text=True, cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_arm_of_every_study_answers_the_same_in_another_world(tmp_path: Path) -> None:
    (tmp_path / "ünïcode dir").mkdir()
    here = elsewhere(tmp_path, "forward", PYTHONHASHSEED="0", OMP_NUM_THREADS="1")
    there = elsewhere(
        tmp_path / "ünïcode dir", "backward",
        PYTHONHASHSEED="4242", TZ="Pacific/Chatham", LC_ALL="tr_TR.UTF-8", LANG="tr_TR.UTF-8", OMP_NUM_THREADS="2",
        HOME=str(tmp_path), NEUROPIL_CACHE=str(tmp_path / "cache"),
    )  # fmt: skip
    first, second = json.loads(here), json.loads(there)
    assert len(first) >= 6 and first.keys() == second.keys()
    for arm in first:
        assert first[arm] == second[arm], f"{arm} differs"


@pytest.mark.parametrize(
    "name", FAMILIES if LONG else ["replay with torch's own state", "HLOP of spikes with rehearsal"]
)
def test_a_life_depends_on_nothing_that_happened_before(nursery: Nursery, name: str) -> None:
    alone = nursery.start("train", name, None).result()["end"]
    random.seed(9)
    np.random.seed(9)  # noqa: NPY002
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        torch.rand(7)
        first = live(name, None)
        live("Adam", None)
        assert first == live(name, None) == alone
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    print(json.dumps(trials(sys.argv[1]), sort_keys=True))
