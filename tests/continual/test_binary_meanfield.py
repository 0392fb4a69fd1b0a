from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neuropil.continual import (
    BinaryVariationalLinear,
    MeanFieldPrior,
    bernoulli_kl,
    perceptron_amp,
    preactivation,
    two_task_perceptron_state_evolution,
)
from neuropil.errors import ConfigError, DataError, IncompatibleError, ShapeError, UnknownNameError
from neuropil.training import Trainer
from tests.training.worlds import BATCH, CLASSES, FEATURES, stream, task


def layer(**settings: Any) -> tuple[nn.Module, Tensor]:
    return BinaryVariationalLinear(6, 4, **settings), torch.randn(5, 6)


def prior(strength: float = 0.5) -> Any:
    def make(model: nn.Module) -> MeanFieldPrior:
        return MeanFieldPrior(model, strength=strength, fields=[name for name, _ in model.named_parameters()])

    return make


def posterior() -> partial[Any]:
    return partial(two_task_perceptron_state_evolution, 0.6, 0.5, 0.3)


PARTS = [
    ("module", layer),
    ("module", partial(layer, beta=2.0, bias=True, answer="mean")),
    ("plugin", prior),
    ("analysis", posterior),
]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        BinaryVariationalLinear(FEATURES, 60),
        nn.LayerNorm(60),
        nn.Tanh(),
        BinaryVariationalLinear(60, CLASSES),
    )


def test_moments_are_those_of_all_binary_weights() -> None:
    """Exact enumeration of the eight weight vectors of one unit, and of two-valued inputs."""
    m = torch.tensor([0.3, -0.8, 0.0], dtype=torch.double)
    a, s2 = (
        torch.tensor([1.5, -0.5, 2.0], dtype=torch.double),
        torch.tensor([0.2, 0.0, 1.1], dtype=torch.double),
    )
    for variance in (None, s2):
        values, chances = [], []
        noises = itertools.product((-1, 1), repeat=3) if variance is not None else [(0, 0, 0)]
        for noise, w in itertools.product(list(noises), itertools.product((-1, 1), repeat=3)):
            x = a + torch.tensor(noise) * (0 if variance is None else variance.sqrt())
            w = torch.tensor(w, dtype=torch.double)
            values.append(float(w @ x) / math.sqrt(3))
            chances.append(float(((1 + w * m) / 2).prod()))
        v, p = np.array(values), np.array(chances) / np.sum(chances)
        mean, spread = preactivation(a, m[None], variance)
        assert float(mean) == pytest.approx(p @ v)
        assert float(spread) == pytest.approx(p @ v**2 - (p @ v) ** 2)


def test_training_draws_from_these_moments() -> None:
    torch.manual_seed(0)
    module, x = BinaryVariationalLinear(8, 2, scale=1.0), torch.randn(8)
    outputs = module(x.expand(40_000, 8)).detach()
    mean, variance = preactivation(x, module.magnetization().detach())
    torch.testing.assert_close(outputs.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(outputs.var(0), variance, atol=0.03, rtol=0)


def test_evaluation_uses_binary_weights_or_means() -> None:
    module, x = layer()
    module.eval()
    torch.testing.assert_close(module(x), x @ module.field.sign().mT / math.sqrt(6))
    module.answer = "mean"
    torch.testing.assert_close(module(x), x @ torch.tanh(module.field).mT / math.sqrt(6))
    module.answer = "sample"
    assert not torch.equal(module(x), module(x))


def test_own_generator_draws_the_noise() -> None:
    x = torch.randn(5, 6)
    module = BinaryVariationalLinear(6, 4, generator=torch.Generator().manual_seed(3))
    first = module(x)
    state = torch.get_rng_state()
    module.generator.manual_seed(3)
    assert torch.equal(module(x), first)
    assert torch.equal(torch.get_rng_state(), state)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4)), min_size=1, max_size=5),
    st.floats(0.2, 2.0),
)
def test_divergence_is_that_of_the_distributions(pairs: list[tuple[float, float]], beta: float) -> None:
    h, p = torch.tensor(pairs, dtype=torch.double).unbind(1)
    q = torch.distributions.Bernoulli(logits=2 * beta * h)
    expected = torch.distributions.kl_divergence(q, torch.distributions.Bernoulli(logits=2 * beta * p)).sum()
    torch.testing.assert_close(bernoulli_kl(h, p, beta), expected, atol=1e-9, rtol=1e-9)
    h.requires_grad_()
    (slope,) = torch.autograd.grad(bernoulli_kl(h, p, beta), h)
    torch.testing.assert_close(slope, beta**2 * (1 - torch.tanh(beta * h) ** 2) * (h - p))


def test_divergence_gradient_and_far_out_fields() -> None:
    h = torch.randn(6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: bernoulli_kl(h, torch.zeros(6).double(), 1.5), h)
    far = torch.tensor([60.0, -60.0], requires_grad=True)
    value = bernoulli_kl(far)
    assert float(value.detach()) == pytest.approx(2 * math.log(2))
    value.backward()
    assert far.grad.isfinite().all()


def test_prior_is_the_last_task() -> None:
    net = network()
    held = MeanFieldPrior(net, strength=2.0)
    field = net[0].field.detach().clone()
    expected = bernoulli_kl(net[0].field, 0.0) + bernoulli_kl(net[3].field, 0.0)
    torch.testing.assert_close(held.divergence(), expected)
    first = task()
    held.before_task(first)
    loss = torch.tensor(1.0)
    torch.testing.assert_close(held.on_loss(loss, None), 1 + 2.0 * expected / len(first.train))
    held.after_task(first)
    assert float(held.divergence().detach()) == pytest.approx(0, abs=1e-4)
    with torch.no_grad():
        net[0].field.add_(0.5)
    torch.testing.assert_close(held.divergence(), bernoulli_kl(field + 0.5, field))


def test_certain_weights_move_least() -> None:
    """The factor 1 - m^2: the same error on two weights moves their fields in that ratio."""
    module = BinaryVariationalLinear(2, 1, answer="mean").eval()
    with torch.no_grad():
        module.field.copy_(torch.tensor([[0.1, 2.0]]))
    module(torch.ones(1, 2)).sum().backward()
    ratio = float(module.field.grad[0, 1] / module.field.grad[0, 0])
    assert ratio == pytest.approx((1 - math.tanh(2.0) ** 2) / (1 - math.tanh(0.1) ** 2), rel=1e-5)


def test_it_learns_with_binary_weights_and_holds_them() -> None:
    moved = []
    for strength in (0.0, 0.3):
        net = network()
        trainer = Trainer(
            net, torch.optim.Adam(net.parameters(), lr=0.02), plugins=[MeanFieldPrior(net, strength=strength)],
            batch_size=BATCH, epochs=15, progress=False,
        )  # fmt: skip
        first, second = stream(2)
        trainer.fit([first])
        assert trainer.evaluate(first) > 0.8
        before = net[0].magnetization().detach()
        trainer.fit([second])
        moved.append(float((net[0].magnetization().detach() - before).abs().mean()))
    assert moved[1] < 0.8 * moved[0]


def test_theory_against_a_literal_integration() -> None:
    """Task one's fixed point against Monte Carlo of its two equations with numpy."""
    theory = two_task_perceptron_state_evolution(0.7, 0.0, 0.0)
    q = theory.first_overlap
    rng = np.random.default_rng(0)
    z = rng.standard_normal(1_000_000)
    w, v, s = math.sqrt(q) * z, 1 - q, math.sqrt(1 - q)
    a = 1 / s
    phi = lambda x: np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)  # noqa: E731
    cdf = lambda x: torch.special.ndtr(torch.from_numpy(x)).numpy()  # noqa: E731
    g = phi(w / math.sqrt(v)) / (math.sqrt(v) * cdf(w / math.sqrt(v)))
    pull, spread = 2 * 0.7 * np.mean(g * phi(a * w)) / s, 2 * 0.7 * np.mean(cdf(a * w) * g**2)
    assert pull == pytest.approx(spread, rel=0.01)  # the learner knows the rule: both are one number
    assert np.mean(np.tanh(math.sqrt(spread) * z + pull)) == pytest.approx(q, abs=0.005)
    assert theory.first_error == pytest.approx(math.acos(math.sqrt(q)) / math.pi)


@pytest.mark.parametrize(
    ("alpha1", "alpha2", "r0", "errors"),
    [
        (0.8, 0.8, 0.0, (0.264, 0.341, 0.396)),
        (0.8, 0.8, 0.6, (0.264, 0.252, 0.283)),
        (1.0, 0.5, -0.5, (0.231, 0.487, 0.389)),
    ],
)
def test_theory_has_known_errors(
    alpha1: float, alpha2: float, r0: float, errors: tuple[float, float, float]
) -> None:
    theory = two_task_perceptron_state_evolution(alpha1, alpha2, r0)
    found = (theory.first_error, theory.second_error, theory.first_error_after_second)
    assert found == pytest.approx(errors, abs=0.001)


def test_theory_at_its_edges() -> None:
    nothing = two_task_perceptron_state_evolution(0.0, 0.0, 0.5)
    assert (nothing.first_error, nothing.second_error) == (0.5, 0.5)
    only = two_task_perceptron_state_evolution(0.8, 0.0, 0.5)
    assert only.first_error_after_second == pytest.approx(only.first_error)
    # The same teacher twice: the more samples the better, but a field a weight says less than the samples themselves.
    again = two_task_perceptron_state_evolution(0.5, 0.5, 1.0)
    whole = two_task_perceptron_state_evolution(1.0, 0.0, 0.0)
    assert again.second_error == pytest.approx(again.first_error_after_second)
    assert whole.first_error < again.second_error < again.first_error
    mirrored = two_task_perceptron_state_evolution(0.7, 0.6, -0.4)
    assert (
        mirrored.first_error_after_second
        > two_task_perceptron_state_evolution(0.7, 0.6, 0.4).first_error_after_second
    )


def test_messages_find_the_exact_posterior_of_a_small_problem() -> None:
    """Twelve weights: all 4096 vectors enumerated, their mean among those that answer every sample rightly."""
    gaps = []
    for seed in range(8):
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(6, 12, generator=g, dtype=torch.double)
        teacher = torch.randn(12, generator=g, dtype=torch.double).sign()
        y, field = (x @ teacher).sign(), 0.3 * torch.randn(12, generator=g, dtype=torch.double)
        every = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=12)), dtype=torch.double)
        chance = ((every @ x.mT).sign() == y).all(1) * (every @ field).exp()
        exact = chance @ every / chance.sum()
        found = perceptron_amp(x, y, field, damping=0.3, iterations=500)
        gaps.append(float((found.mean - exact).abs().mean()))
        assert torch.corrcoef(torch.stack([found.mean, exact]))[0, 1] > 0.8
    assert np.mean(gaps) < 0.15


def test_messages_agree_with_theory() -> None:
    errors = []
    for seed in range(4):
        g = torch.Generator().manual_seed(seed)
        first = torch.randn(800, generator=g).sign()
        second = torch.where(torch.rand(800, generator=g) < 0.8, first, -first)
        field, row = None, []
        for teacher in (first, second):
            x = torch.randn(640, 800, generator=g)
            known = perceptron_amp(x, (x @ teacher).sign(), field, damping=0.1)
            assert known.converged
            field = known.field
            row.append(known.mean @ teacher / (known.mean.norm() * teacher.norm()))
        row.append(known.mean @ first / (known.mean.norm() * first.norm()))
        errors.append([math.acos(float(c)) / math.pi for c in row])
    theory = two_task_perceptron_state_evolution(0.8, 0.8, 0.6)
    expected = (theory.first_error, theory.second_error, theory.first_error_after_second)
    assert np.mean(errors, 0) == pytest.approx(expected, abs=0.015)


def test_a_strong_prior_answers_alone() -> None:
    field = torch.tensor([8.0, -8.0, 8.0])
    found = perceptron_amp(torch.zeros(0, 3), torch.zeros(0), field)
    torch.testing.assert_close(found.mean, field.tanh())


@pytest.mark.parametrize(
    ("call", "error", "line"),
    [
        (lambda: BinaryVariationalLinear(0, 2), ConfigError, "in_features: got 0"),
        (lambda: BinaryVariationalLinear(2, 2, beta=0.0), ConfigError, "beta: got 0.0"),
        (lambda: BinaryVariationalLinear(2, 2, scale=-1.0), ConfigError, "scale: got -1.0"),
        (lambda: BinaryVariationalLinear(2, 2, answer="sing"), ConfigError, "did you mean 'sign'"),
        (lambda: BinaryVariationalLinear(3, 2)(torch.zeros(4, 2)), ShapeError, "expected 3 in the last"),
        (lambda: bernoulli_kl(torch.zeros(3), torch.zeros(2)), ShapeError, r"prior fields \[2\] for fields \[3\]"),
        (lambda: MeanFieldPrior(nn.Linear(2, 2)), IncompatibleError, "no BinaryVariationalLinear"),
        (lambda: MeanFieldPrior(nn.Linear(2, 2), fields=["wieght"]), UnknownNameError, "did you mean 'weight'"),
        (lambda: MeanFieldPrior(network(), strength=-1.0), ConfigError, "strength: got -1.0"),
        (lambda: MeanFieldPrior(network(), samples=0), ConfigError, "samples: got 0"),
        (lambda: MeanFieldPrior(network()).on_loss(torch.tensor(1.0), None), ConfigError, "number of samples"),
        (lambda: MeanFieldPrior(network()).before_task(None), ConfigError, "how many samples"),
        (lambda: two_task_perceptron_state_evolution(-1, 1, 0), ConfigError, "alpha1: got -1"),
        (lambda: two_task_perceptron_state_evolution(1, 1, 1.5), ConfigError, "r0: got 1.5"),
        (lambda: perceptron_amp(torch.zeros(3), torch.ones(3)), ShapeError, "expected numbers"),
        (lambda: perceptron_amp(torch.zeros(3, 2), torch.ones(2)), ShapeError, r"\[2\] labels for 3 samples"),
        (lambda: perceptron_amp(torch.ones(3, 2), torch.zeros(3)), DataError, r"\+1 or -1"),
        (lambda: perceptron_amp(torch.ones(3, 2), torch.ones(3), torch.ones(3)), ShapeError, "for 2 weights"),
        (lambda: perceptron_amp(torch.ones(3, 2), torch.ones(3), damping=1.0), ConfigError, "damping: got 1.0"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(call: Any, error: type[Exception], line: str) -> None:
    with pytest.raises(error, match=line) as caught:
        call()
    assert "\n" not in str(caught.value)
