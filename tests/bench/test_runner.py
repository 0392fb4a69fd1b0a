from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from neuropil.bench import Event, Result
from neuropil.bench.runner import resume, run
from neuropil.bench.store import read_run
from neuropil.errors import CheckpointError, ConfigError, UnknownNameError
from tests.bench.tiny_study import make, study

ROOT = Path(__file__).resolve().parents[2]


def metrics(result: Result) -> dict:
    return {(t.arm, t.seed): (t.metrics, t.curves, t.arrays) for t in result.trials}


def kinds(events: list[Event], *wanted: str) -> list[str]:
    return [
        event.kind
        for event in events
        if event.kind in (wanted or ("cached", "started", "finished", "failed"))
    ]


def test_workers_cache_and_directory_agree_with_the_seed(own_places: Path) -> None:
    events: list[Event] = []
    result = run(study, jobs=2, out="first", on_event=events.append)
    expected = torch.rand(16, generator=torch.Generator().manual_seed(1)) + 0.1
    assert result.metric("tiny", "acc")[1] == expected.mean().item()
    assert all(t.arrays["threads"] == 1 for t in result.trials)
    assert events[0].kind == "planned" and events[0].total == 6
    assert kinds(events).count("started") == kinds(events).count("finished") == 6
    assert events[-1].done == 6 and events[-1].left == 0.0
    primary, alike = result.judgements
    assert primary.verdict == "holds" and primary.value == pytest.approx(0.1, abs=1e-6)
    assert alike.differences == tuple(1.0 - acc for acc in result.metric("other", "acc") if acc is not None)

    # The directory alone holds everything; the cache alone answers a second run, to the last bit.
    events.clear()
    again = run(study, jobs=2, out="second", on_event=events.append)
    assert set(kinds(events)) == {"cached"} and again.trials == result.trials
    for path in (own_places / "cache").rglob("*.json"):
        path.unlink()
    assert read_run("first") == result
    json.loads((own_places / "first/run.json").read_text(), parse_constant=pytest.fail)


def test_bits_do_not_depend_on_the_worker_or_on_trials_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = run(study, jobs=2, out="a")
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path / "other"))
    alone = run(study, seeds=[2], arms=["other"], jobs=1, out="b")
    assert metrics(alone).items() <= metrics(whole).items()


def test_in_process_trials_leave_the_process_as_it_was() -> None:
    torch.manual_seed(5)
    torch.set_num_threads(2)
    before = torch.random.get_rng_state(), random.getstate()
    run(study, seeds=[0], jobs=0, out="a")
    assert torch.equal(torch.random.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert torch.get_default_dtype() == torch.float32 and torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()


def test_settings_are_tuned_then_scaled_then_overridden(own_places: Path) -> None:
    tuning = {"schema": 1, "choices": {"tiny": {"shift": 0.3, "draws": 8}}, "trials": []}
    (own_places / "results/tuning").mkdir(parents=True)
    (own_places / "results/tuning/tiny.json").write_text(json.dumps(tuning))
    result = run(study, scale="smoke", overrides={"tiny.limit": "2"}, jobs=0, out="a")
    assert (result.configs["tiny"]["shift"], result.configs["tiny"]["draws"]) == (0.3, 4)
    assert result.configs["tiny"]["limit"] == 2.0 and result.tuning["choices"] == tuning["choices"]
    assert result.seeds == (0,) and all(judgement.verdict is None for judgement in result.judgements)


def test_another_setting_seed_scale_or_datum_is_another_trial() -> None:
    checksums = iter(["one", "two"])
    keys = set()
    for number, (this, changes) in enumerate(
        [
            (study, {}),
            (study, {"overrides": {"draws": "17"}}),
            (study, {"seeds": [1]}),
            (study, {"scale": "paper"}),
            (make(data=lambda _: next(checksums)), {}),
        ]
    ):
        options = {"seeds": [0], "arms": ["tiny"], **changes}
        keys |= {t.key for t in run(this, jobs=0, out=f"run{number}", **options).trials}  # type: ignore[arg-type]
    assert len(keys) == 5


def test_a_trial_that_raises_or_dies_is_told_and_the_others_go_on(own_places: Path) -> None:
    events: list[Event] = []
    raising = run(study, overrides={"mode": "raise"}, jobs=1, out="a", on_event=events.append)
    assert [(f.arm, f.seed, f.message) for f in raising.failures][:1] == [
        ("tiny", 0, "loss is NaN in step 3")
    ]
    assert len(raising.failures) == 3 and [t.arm for t in raising.trials] == ["other"] * 3
    assert "arm tiny, seed 0: loss is NaN in step 3" in [event.message for event in events]
    assert "NonFiniteError" in (own_places / "a/errors/tiny-0.txt").read_text()
    assert raising.judgements[0].verdict == "undecided"
    dying = run(study, overrides={"mode": "die"}, seeds=[0], jobs=1, out="b")
    assert [f.message for f in dying.failures] == ["the worker ended with exit code 7"]
    assert len(dying.trials) == 1


def test_undefined_metrics_are_none(own_places: Path) -> None:
    result = run(study, overrides={"mode": "empty"}, seeds=[0], jobs=0, out="a")
    assert result.metric("tiny", "odd") == [None] and result.metric("tiny", "pid") == [None]
    assert "NaN" not in (own_places / "a/trials/tiny-0.json").read_text()


def test_what_a_trial_prints_does_not_reach_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    run(study, overrides={"noisy": "true"}, seeds=[0], arms=["tiny"], jobs=1, out="a")
    out, err = capfd.readouterr()
    assert out == "" and "noise on standard output" in err


def test_damaged_trials_are_computed_again_with_a_warning(own_places: Path) -> None:
    whole = run(study, jobs=0, out="a")
    for path in (own_places / "cache/trials").rglob("*.json"):
        path.write_text(path.read_text()[:-9])
    (own_places / "a/trials/tiny-1.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tiny-1\.json"):
        read_run("a")
    events: list[Event] = []
    resumed = resume("a", study=study, jobs=0, on_event=events.append)
    assert metrics(resumed) == metrics(whole) and resumed.judgements == whole.judgements
    assert kinds(events).count("finished") == 1 and kinds(events).count("cached") == 5
    assert sum("computed again" in event.message for event in events if event.kind == "warning") == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seeds": [0, 10000]}, ConfigError, "seeds: 10000 is a development seed"),
        ({"seeds": [-1]}, ConfigError, "from 0 to 9999"),
        ({"seeds": []}, ConfigError, "at least one"),
        ({"arms": ["tny"]}, UnknownNameError, "did you mean 'tiny'"),
        ({"arms": []}, ConfigError, "at least one of tiny, other"),
        ({"scale": "laptp"}, ConfigError, "did you mean 'laptop'"),
        ({"overrides": {"shfit": "1"}}, ConfigError, "did you mean 'shift'"),
        ({"jobs": -1}, ConfigError, "at least 0"),
    ],
)
def test_bad_requests_are_refused(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run(study, **{"jobs": 0, "out": "a", **options})


def test_a_directory_in_use_is_refused() -> None:
    run(study, seeds=[0], jobs=0, out="a")
    with pytest.raises(ConfigError, match="resume"):
        run(study, seeds=[0], jobs=0, out="a")


SCRIPT = """
import sys
from neuropil.bench.runner import run
from tests.bench.tiny_study import study

def tell(event):
    if event.kind in ("started", "finished"):
        print(event.kind, flush=True)

if __name__ == "__main__":
    run(study, jobs=2, out="stopped", overrides={"sleep": sys.argv[1]}, on_event=tell)
"""


def started(sleep: str, until: str) -> subprocess.Popen[str]:
    """A run in a process group of its own, at the moment when something first happens in it."""
    Path("script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, "script.py", sleep],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == until:
            return process
    pytest.fail(process.stderr.read() if process.stderr else "")


def group_is_gone(group: int) -> bool:
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups are POSIX")
def test_killed_in_mid_run_and_resumed_it_ends_as_if_never_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    process = started("0.3", until="finished")
    process.kill()
    process.communicate()
    assert group_is_gone(process.pid), "workers outlived their parent"
    kept = len(list(Path("stopped/trials").glob("*.json")))
    assert 1 <= kept < 6
    events: list[Event] = []
    resumed = resume("stopped", study=study, jobs=0, on_event=events.append)
    assert kinds(events).count("finished") < 6
    monkeypatch.setenv("NEUROPIL_CACHE", str(Path("fresh").absolute()))
    whole = run(study, jobs=0, out="whole", overrides={"sleep": "0.3"})
    assert metrics(resumed) == metrics(whole) and resumed.judgements == whole.judgements
    assert read_run("stopped") == resumed
    assert not [path for path in Path("stopped/trials").iterdir() if path.suffix != ".json"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups are POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal_it_leaves_no_worker_and_can_go_on(number: int, code: int) -> None:
    process = started("30", until="started")
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == code, err
    assert err.count("Traceback") <= 1, "workers must not see Ctrl-C"
    assert group_is_gone(process.pid)
    assert read_run("stopped").trials == ()
