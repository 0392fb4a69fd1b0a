from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from neuropil.continual import ClassPosterior, ProtoCL, PrototypicalBayesClassifier, Replay
from neuropil.continual.proto_bayes import leave_one_out, log_predictive, updated_posterior
from neuropil.data import Batch, Stream, Task
from neuropil.errors import ConfigError, LabelError, ShapeError
from neuropil.training import Trainer
from tests.training.worlds import CLASSES, FEATURES, mlp, same, task, weights


def classifier(**settings: Any) -> PrototypicalBayesClassifier:
    encoder = nn.Sequential(nn.Linear(FEATURES, 10), nn.ReLU(), nn.Linear(10, 6))
    return PrototypicalBayesClassifier(encoder, 6, CLASSES, **settings)


def judged(**settings: Any) -> tuple[nn.Module, Tensor]:
    model = classifier(**settings)
    model.observe(torch.randn(20, FEATURES), torch.arange(20) % CLASSES)  # a class not met is at minus infinity
    return model, torch.randn(7, FEATURES)


PARTS = [("module", judged), ("module", partial(judged, balanced=False, noise=0.3))]


def prior(classes: int = 3, features: int = 4, precision: float = 0.5) -> ClassPosterior:
    zeros = torch.zeros(classes, features, dtype=torch.double)
    return ClassPosterior(zeros, torch.full((classes,), precision).double(), torch.zeros(classes).double())


def examples(count: int = 12, features: int = 4, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, features, generator=generator).double(), torch.arange(count) % classes


def test_posterior_in_portions_is_the_posterior_at_once() -> None:
    z, y = examples()
    whole = updated_posterior(prior(), z, y, noise=0.7)
    parts = prior()
    for at in torch.randperm(12, generator=torch.Generator().manual_seed(1)).split(5):
        parts = updated_posterior(parts, z[at], y[at], noise=0.7)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_posterior_is_bayes_rule_on_a_grid() -> None:
    z = torch.tensor([[0.4], [1.3], [0.9]], dtype=torch.double)
    found = updated_posterior(prior(1, 1), z, torch.zeros(3).long(), noise=0.7)
    grid = torch.linspace(-6, 6, 20001, dtype=torch.double)
    log = -0.25 * grid**2 - (z - grid).square().sum(0) / 1.4
    density = (log - log.max()).exp()
    density /= density.sum()
    mean = (density * grid).sum()
    torch.testing.assert_close(found.means[0, 0], mean)
    torch.testing.assert_close(1 / found.precisions[0], (density * (grid - mean) ** 2).sum())


def test_predictive_density_is_that_of_the_joint_normal() -> None:
    """p(new | old) = p(new, old) / p(old), from the covariance of examples that share an unknown mean."""
    z, noise, precision = torch.tensor([0.4, 1.3, 0.9], dtype=torch.double), 0.7, 0.5
    new = torch.tensor(0.2, dtype=torch.double)

    def joint(x: Tensor) -> Tensor:
        n = len(x)
        shared = torch.full((n, n), 1 / precision, dtype=torch.double)
        return MultivariateNormal(torch.zeros(n).double(), shared + noise * torch.eye(n).double()).log_prob(x)

    known = updated_posterior(prior(1, 1), z[:, None], torch.zeros(3).long(), noise=noise)
    expected = joint(torch.cat([z, new[None]])) - joint(z)
    torch.testing.assert_close(log_predictive(new[None, None], known, noise=noise)[0, 0], expected)


@pytest.mark.parametrize("count", [1, 4, 12])  # with 1 and 4 a class has a single example, or none
def test_each_example_is_judged_by_all_others(count: int) -> None:
    z, y = (part[:count] for part in examples())
    found = leave_one_out(z, y, prior(), noise=0.7)
    for i in range(count):
        others = torch.arange(count) != i
        known = updated_posterior(prior(), z[others], y[others], noise=0.7)
        torch.testing.assert_close(found[i], log_predictive(z[i : i + 1], known, noise=0.7)[0])


def test_gradients_reach_prototypes() -> None:
    z, y = examples(6)
    z.requires_grad_(True)
    torch.autograd.gradcheck(lambda f: leave_one_out(f, y, prior(), noise=0.7), z)
    (gradient,) = torch.autograd.grad(leave_one_out(z, y, prior())[0, 1], z)
    assert gradient[1].any() and gradient[4].any() and not gradient[3].any()


def test_classes_not_met_are_impossible_or_as_likely_as_their_one_count() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(30, FEATURES), torch.arange(30) % 2
    even, counted = classifier(), classifier(balanced=False)
    counted.encoder = even.encoder
    for model in (even, counted):
        torch.testing.assert_close(model(x).exp().sum(1), torch.ones(30))
        model.observe(x, y)
    assert (even(x)[:, 2:] == -torch.inf).all() and counted(x)[:, 2:].isfinite().all()
    density = log_predictive(even.features_of(x), even.posterior)
    torch.testing.assert_close(even(x)[:, :2], density[:, :2].log_softmax(1))
    torch.testing.assert_close(counted(x), (density + torch.tensor([16.0, 16, 1, 1]).log()).log_softmax(1))
    even.forget()
    assert not even.counts.any() and not even.means.any() and (even.precisions == 0.1).all()


def test_renewing_some_classes_leaves_the_others() -> None:
    z, y = torch.randn(20, 6), torch.arange(20) % 4
    model = classifier()
    model.renew(z, y)
    before = model.means.clone()
    keep = y == 2
    model.renew(z[keep] + 1, y[keep])
    assert torch.equal(model.means[[0, 1, 3]], before[[0, 1, 3]])
    torch.testing.assert_close(model.means[2], (z[keep] + 1).sum(0) / 5.1)


def learner(arm: str = "", **settings: Any) -> ProtoCL:
    torch.manual_seed(0)
    model = classifier()
    replay = None if arm == "alone" else Replay(per_class=6, generator=torch.Generator().manual_seed(1))
    return ProtoCL(model, torch.optim.Adam(model.parameters(), lr=0.01), replay=replay, **settings)


def two_by_two() -> Stream:
    return Stream(tuple(_moved(i) for i in range(2)), n_classes=CLASSES)


def _moved(index: int) -> Task:
    made = task(index, classes=(2 * index, 2 * index + 1))
    return Task(made.name, made.train, made.validation, made.test, None, index)


def test_it_learns_a_batch_and_ignores_classes_ruled_out() -> None:
    each = learner()
    x, y = task().train.tensors
    first = each.update(Batch(x, y))["loss"]
    for _ in range(40):
        last = each.update(Batch(x, y))["loss"]
    assert last < 0.3 * first
    assert (each.predict(x).argmax(1) == y).float().mean() > 0.95
    keep = y < 2
    loss = each.update(Batch(x[keep], y[keep], (0, 1)))["loss"]
    twin = learner()
    assert loss >= 0 and twin.update(Batch(x[keep], y[keep]))["loss"] == pytest.approx(
        learner().update(Batch(x[keep], y[keep], (0, 1)))["loss"]
    )


def test_memory_keeps_classes_that_are_lost_without_it() -> None:
    found = {}
    for name, each in {
        "whole": learner(),
        "alone": learner("alone"),
        "stale": learner(recompute=False),
    }.items():
        history = Trainer(learner=each, epochs=10, batch_size=16, progress=False).fit(two_by_two())
        found[name] = history.average_accuracy
    assert found["whole"] > 0.9 and found["alone"] < 0.7


def test_prototypes_are_of_the_memory_and_the_present_encoder() -> None:
    each = learner()
    Trainer(learner=each, epochs=2, batch_size=16, progress=False).fit(two_by_two())
    memory = each.replay.buffer.select(torch.arange(24))
    expected = updated_posterior(each.model.prior, each.model.features_of(memory.inputs), memory.targets)
    for held, value in zip(each.model.posterior, expected, strict=True):
        torch.testing.assert_close(held, value)


def test_without_recomputing_a_prototype_stays_as_its_task_left_it() -> None:
    each = learner(recompute=False)
    first, second = two_by_two()
    judge = Trainer(learner=each, epochs=2, batch_size=16, progress=False)
    judge.fit(Stream((first,), n_classes=CLASSES))
    x, y = first.train.tensors
    torch.testing.assert_close(each.model.means[0], each.model.features_of(x[y == 0]).sum(0) / (24 + 0.1))
    held = each.model.means[:2].clone()
    for _ in range(3):
        each.update(Batch(*second.train.tensors))
    each.end_task(second)
    assert torch.equal(each.model.means[:2], held) and each.model.counts.tolist() == [24, 24, 24, 24]


def test_it_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path: Any) -> None:
    def trained(**settings: Any) -> Trainer:
        return Trainer(learner=learner(), epochs=2, batch_size=16, progress=False, **settings)

    whole = trained()
    whole.fit(two_by_two())
    half = trained(checkpoint=tmp_path)
    half.fit(two_by_two()[:1])
    rest = trained(checkpoint=tmp_path)
    rest.fit(two_by_two(), resume=True)
    assert same(weights(whole.model), weights(rest.model))


def test_bad_calls_are_refused() -> None:
    for setting in ({"noise": 0.0}, {"prior_precision": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            classifier(**setting)
    with pytest.raises(ShapeError, match=r"the encoder gives \[3, 4\], expected \[batch, 6\]"):
        PrototypicalBayesClassifier(mlp(), 6, 2)(torch.zeros(3, FEATURES))
    with pytest.raises(LabelError, match="label 9"):
        learner().update(Batch(torch.zeros(3, FEATURES), torch.tensor([0, 9, 1])))
    with pytest.raises(ConfigError, match="expected PrototypicalBayesClassifier"):
        ProtoCL(mlp(), torch.optim.Adam(mlp().parameters()))
