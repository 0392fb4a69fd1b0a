"""The same trials on a real Ray cluster of two nodes, one of which dies in mid-run."""

from __future__ import annotations

import multiprocessing
import os
import queue
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neuropil.bench import Event
from neuropil.bench.cluster import MAX_RETRIES, _Crew
from neuropil.bench.executor import Job
from neuropil.bench.places import check_place, place
from neuropil.bench.runner import run
from neuropil.bench.store import read_run
from neuropil.bench.study import Trial
from neuropil.errors import ConfigError, MissingExtraError
from tests.bench.tiny_study import Tiny, make, study, trial


@pytest.mark.parametrize("on", ["", "rya", "local:", "ray://", "ray://host", "http://host:1", "a b:1"])
def test_a_place_that_is_none_is_refused_before_the_work(on: str) -> None:
    with pytest.raises(ConfigError, match="expected local, ray or ray://host:port"):
        run(study, on=on, out="a")
    assert not Path("a").exists()
    with pytest.raises(ConfigError, match="did you mean 'ray'"):
        check_place("rya")


def test_without_ray_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"neuropil\[ray\]"):
        run(study, on="ray", out="a")


@pytest.mark.ray
def test_an_address_where_nobody_answers_is_told_at_once() -> None:
    with (
        pytest.raises(ConfigError, match=r"on ray://127\.0\.0\.1:1: nobody answers there"),
        place("ray://127.0.0.1:1"),
    ):
        pytest.fail("connected")


@pytest.mark.ray
def test_a_trial_moves_a_few_times_and_then_fails() -> None:
    crew = _Crew([], own="same")
    job = Job("key", Trial("tiny", Tiny(), 0, "laptop"), trial)
    for _ in range(MAX_RETRIES):
        assert crew._move(None, job, OSError("gone")) == []
        assert crew.waiting.pop() is job
    (step,) = crew._move(None, job, OSError("gone"))
    assert step.kind == "ended" and step.reply is not None and step.reply.record is None
    assert crew.waiting == []


def on_two_nodes(place: Path, told: Any) -> None:
    """In a process of its own: a cluster of two nodes; the second dies once it is at work."""
    import ray
    from ray.cluster_utils import Cluster

    from neuropil.bench import catalogue

    os.environ["NEUROPIL_CACHE"] = str(place / "cluster-cache")
    os.chdir(place)
    catalogue.results_directory = lambda: place / "results"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    busy: set[tuple[str | None, int | None]] = set()

    def tell(event: Event) -> None:
        nonlocal second
        told.put(event)
        cell = (event.arm, event.seed)
        busy.add(cell) if event.kind == "started" else busy.discard(cell)
        if second is not None and event.kind == "progress" and len(busy) == 2:
            cluster.remove_node(second, allow_graceful=False)
            second = None

    try:
        run(
            study,
            on=cluster.address,
            out="cluster",
            overrides={"sleep": "1.5", "noisy": "true"},
            on_event=tell,
        )
        with place_again(cluster.address):
            dying = run(study, on="ray", seeds=[0], out="dying", overrides={"mode": "die"}, on_event=told.put)
            told.put([failure.message for failure in dying.failures])
            assert ray.is_initialized()
    finally:
        cluster.shutdown()


def place_again(address: str) -> Any:
    import ray

    return ray.init(address, log_to_driver=False, logging_level="ERROR")


def everything(told: Any, process: Any) -> Iterator[Any]:
    while process.is_alive() or not told.empty():
        try:
            yield told.get(timeout=0.5)
        except queue.Empty:
            continue


@pytest.mark.ray
@pytest.mark.skipif(sys.platform == "win32", reason="a cluster of several nodes on one machine is POSIX")
def test_a_node_dies_and_nothing_is_lost_or_doubled(own_places: Path) -> None:
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=on_two_nodes, args=(own_places, told))
    process.start()
    events = list(everything(told, process))
    process.join()
    assert process.exitcode == 0
    assert events.pop() == ["the worker ended with exit code 7"] * 1  # its trial failed, its node lives
    events = events[: [event.kind for event in events].index("planned", 1)]
    cells = sorted((arm, seed) for arm in study.arms for seed in range(study.seeds))
    count = {
        kind: sorted((e.arm, e.seed) for e in events if e.kind == kind) for kind in ("started", "finished")
    }
    assert count["finished"] == cells  # each once
    assert len(count["started"]) == len(cells) + 1  # one was on the node that died
    local = run(make(), jobs=2, out="local", overrides={"sleep": "1.5", "noisy": "true"})
    moved = read_run("cluster")
    for ours, theirs in zip(local.trials, moved.trials, strict=True):
        assert (ours.key, ours.metrics, ours.curves, ours.arrays) == (
            theirs.key,
            theirs.metrics,
            theirs.curves,
            theirs.arrays,
        )
    assert local.judgements == moved.judgements and moved.failures == ()
