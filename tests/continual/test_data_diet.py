from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from neuropil.continual import (
    ExampleScores,
    ForgettingTracker,
    el2n_scores,
    grand_scores,
    prune_dataset,
    rank_correlation,
)
from neuropil.data import Arrays, gather
from neuropil.errors import ConfigError, LabelError, NonFiniteError, ShapeError
from neuropil.training import Trainer
from tests.training.worlds import CLASSES, FEATURES, MODELS, mlp, sgd, stream, task


def samples(count: int = 30) -> TensorDataset:
    generator = torch.Generator().manual_seed(5)
    return TensorDataset(torch.randn(count, FEATURES, generator=generator), torch.arange(count) % CLASSES)


def nets(count: int = 3) -> list[nn.Module]:
    return [mlp(seed=seed) for seed in range(count)]


def el2n() -> partial[Any]:
    return partial(el2n_scores, nets(), samples())


def grand() -> partial[Any]:
    return partial(grand_scores, nets(2), samples(), batch_size=7)


def tracker() -> Any:
    return lambda model: ForgettingTracker(model, samples())


def pruned() -> Any:
    def factory(seed: int) -> Any:
        scores = torch.rand(60, generator=torch.Generator().manual_seed(seed))
        pixels = torch.arange(60 * 4, dtype=torch.uint8).reshape(60, 4)
        return prune_dataset(Arrays(pixels, torch.arange(60) % 3), scores, keep=0.5, offset=0.1)

    return factory


PARTS = [("analysis", el2n), ("analysis", grand), ("plugin", tracker), ("source", pruned)]


def test_el2n_is_the_length_of_the_error_by_numpy() -> None:
    models, data = nets(), samples()
    found = el2n_scores(models, data, batch_size=8)
    x, y = data.tensors
    for row, model in zip(found.per_model, models, strict=True):
        logits = model(x).detach().numpy().astype(np.float64)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(row, np.sqrt(((p - np.eye(CLASSES)[y]) ** 2).sum(1)), rtol=1e-5)
    torch.testing.assert_close(found.values, found.per_model.mean(0))
    assert torch.equal(found.targets, y) and bool((found.values <= math.sqrt(2)).all())


def test_of_a_linear_net_grand_is_el2n_times_the_length_of_the_input() -> None:
    net = nn.Linear(FEATURES, CLASSES)
    x = samples().tensors[0]
    length = (1 + x.square().sum(1)).sqrt()  # weights and bias: the gradient is error x (input, 1)
    torch.testing.assert_close(
        grand_scores([net], samples()).values, el2n_scores([net], samples()).values * length
    )


def test_only_allowed_answers_count() -> None:
    net = nn.Linear(FEATURES, 4)
    pair = TensorDataset(samples().tensors[0], torch.arange(30) % 2)
    narrow = nn.Linear(FEATURES, 2)
    narrow.load_state_dict({"weight": net.weight[:2], "bias": net.bias[:2]})
    torch.testing.assert_close(
        el2n_scores([net], pair, classes=(0, 1)).values, el2n_scores([narrow], pair).values
    )


@pytest.mark.parametrize("network", MODELS)
def test_scores_do_not_depend_on_the_batch_and_leave_modes_alone(network: Any) -> None:
    model = network().train()
    frozen = next(m for m in model.modules() if isinstance(m, nn.Linear))
    frozen.eval()
    for score in (el2n_scores, grand_scores):
        whole = score([model], samples(), batch_size=30).values
        torch.testing.assert_close(score([model], samples(), batch_size=1).values, whole)
        torch.testing.assert_close(score([model], DataLoader(samples(), batch_size=7)).values, whole)
    assert model.training and not frozen.training


def test_wrong_labels_score_highest() -> None:
    data = task(count=200).train
    x, y = data.tensors
    wrong = torch.arange(200) % 10 == 0
    noisy = TensorDataset(x, torch.where(wrong, (y + 1) % CLASSES, y))
    models = nets(4)
    for model in models:
        optimizer = sgd(model, 0.2)
        for _ in range(40):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), noisy.tensors[1]).backward()
            optimizer.step()
    for found in (el2n_scores(models, noisy), grand_scores(models, noisy)):
        assert found.values[wrong].min() > found.values[~wrong].quantile(0.9)


def test_reliability_rises_with_agreement() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, noise = torch.randn(500, generator=generator), torch.randn(8, 500, generator=generator)

    def of(per_model: torch.Tensor) -> ExampleScores:
        return ExampleScores("test", per_model.mean(0), per_model, torch.zeros(500).long())

    assert of(truth.expand(8, 500)).reliability == pytest.approx(1.0)
    assert of(truth + noise).reliability == pytest.approx(
        8 / 9, abs=0.03
    )  # Spearman and Brown: k v / (k v + 1)
    assert abs(of(noise).reliability or 0) < 0.15
    assert of(truth[None]).reliability is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=4, max_size=40))
def test_rank_correlation_is_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = torch.tensor(pairs).double().unbind(1)
    if len(a.unique()) > 1 and len(b.unique()) > 1:
        assert rank_correlation(a, b) == pytest.approx(float(spearmanr(a, b)[0]), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.floats(0.02, 1), st.floats(0, 1), st.integers(0, 9))
def test_pruning_keeps_a_window_of_the_ranking(count: int, keep: float, offset: float, seed: int) -> None:
    offset *= 1 - keep
    scores = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).float()
    data = Arrays(torch.arange(count), torch.zeros(count).long())
    if round(keep * count) == 0:
        with pytest.raises(ConfigError, match="leaves none"):
            prune_dataset(data, scores, keep, offset=offset)
        return
    kept = gather(
        prune_dataset(data, scores, keep, offset=offset),
        range(min(count - round(offset * count), round(keep * count))),
    )[0]
    top = count - 1 - round(offset * count)
    assert sorted(scores[kept].tolist()) == [
        float(v) for v in range(max(0, top - round(keep * count) + 1), top + 1)
    ]
    assert kept.tolist() == sorted(kept.tolist())


def test_ties_are_broken_by_the_generator() -> None:
    data, scores = samples(), torch.zeros(30)
    draws = [
        prune_dataset(data, scores, 0.5, generator=torch.Generator().manual_seed(seed)).indices
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert prune_dataset(data, scores, 0.5).indices == list(range(15))


def test_forgetting_events_of_a_known_history() -> None:
    tracker = ForgettingTracker(mlp(), samples(4))
    history = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 0, 1, 1]]).bool()
    for right in history:
        tracker.note(torch.arange(4), right)
    assert tracker.forgotten.tolist() == [2, 0, 0, 1]
    assert tracker.learned.tolist() == [True, False, True, True]
    assert tracker.scores().tolist() == [2.0, 3.0, 0.0, 1.0]


def test_the_tracker_sees_what_the_model_answers() -> None:
    model, data = mlp(), samples()
    tracker = ForgettingTracker(model, data)
    tracker.look()
    before = model(data.tensors[0]).argmax(-1) == data.tensors[1]
    with torch.no_grad():
        model.leave.bias[2] += 100.0  # now everything is class 2
    tracker.look()
    is_two = data.tensors[1] == 2
    assert torch.equal(tracker.forgotten > 0, before & ~is_two)
    assert torch.equal(tracker.learned, before | is_two)


def test_in_the_trainer_it_looks_before_each_pass_and_at_the_end() -> None:
    model = mlp()
    tracker = ForgettingTracker(model, stream(2)[1].train)
    Trainer(model, sgd(model), plugins=[tracker], epochs=4, progress=False).fit(stream(2))
    assert tracker.looks == 10 and len(tracker.forgotten) == len(stream(2)[1].train)
    assert bool(tracker.learned.any())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: el2n_scores([], samples()), ConfigError, "no model"),
        (lambda: el2n_scores(nn.Sequential(nn.Linear(2, 2)), samples()), ConfigError, "list of models"),
        (lambda: grand_scores(nets(1), DataLoader(samples(), shuffle=True)), ConfigError, "shuffle=False"),
        (lambda: el2n_scores([nn.Linear(FEATURES, 2)], samples()), LabelError, "2 outputs"),
        (lambda: grand_scores([nn.Linear(FEATURES, 2)], samples()), LabelError, "2 outputs"),
        (lambda: prune_dataset(samples(), torch.zeros(3), 0.5), ShapeError, "each of 30"),
        (lambda: prune_dataset(samples(), torch.zeros(30), 0.0), ConfigError, "keep=0"),
        (lambda: prune_dataset(samples(), torch.zeros(30), 0.8, offset=0.3), ConfigError, "offset=0.3"),
        (lambda: prune_dataset(samples(), torch.full((30,), float("nan")), 0.8), NonFiniteError, "30 scores"),
        (lambda: ForgettingTracker(mlp(), DataLoader(samples(), shuffle=True)), ConfigError, "shuffle=False"),
        (lambda: ForgettingTracker(mlp(), samples()).note(torch.arange(3), torch.ones(2).bool()), ShapeError, "note"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_net_that_answers_nan_is_refused() -> None:
    model = mlp()
    with torch.no_grad():
        model.leave.bias[0] = float("nan")
    with pytest.raises(NonFiniteError, match="EL2N"):
        el2n_scores([model], samples())
