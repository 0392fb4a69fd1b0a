"""The trained edits that unlearning is compared with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from neuropil.editing import (
    amnesiac,
    bad_teacher,
    finetuned,
    forgetting_scores,
    gradient_ascent,
    last_layers,
    retrained,
    scrub,
)
from neuropil.editing.descent import divergence
from neuropil.editing.relabelling import relabelled
from neuropil.errors import ConfigError, NonFiniteError, UnknownNameError
from tests.editing.forgetting import FORGET, generator, gone, kept, part, samples
from tests.training.worlds import CLASSES, FEATURES, MODELS, Branches, convolutional, mlp, same, weights

Edit = Callable[..., nn.Module]
TEACHER = mlp(seed=5)
FAST = partial(torch.optim.Adam, lr=5e-3)
OTHERS = [label for label in range(CLASSES) if label != FORGET]


def finetuning(model: nn.Module, **settings: Any) -> nn.Module:
    return finetuned(model, kept(), generator=generator(), **settings)


def retraining(model: nn.Module, **settings: Any) -> nn.Module:
    return retrained(model, kept(), initialise=anew, generator=generator(), **settings)


def ascent(model: nn.Module, **settings: Any) -> nn.Module:
    return gradient_ascent(model, gone(), generator=generator(), **settings)


def ascent_and_descent(model: nn.Module, **settings: Any) -> nn.Module:
    return gradient_ascent(model, gone(), kept(), generator=generator(), **settings)


def teaching(model: nn.Module, **settings: Any) -> nn.Module:
    teacher = copy.deepcopy(TEACHER).to(next(model.parameters()).dtype)
    return bad_teacher(model, gone(), kept(), teacher=teacher, generator=generator(), **settings)


def scrubbing(model: nn.Module, **settings: Any) -> nn.Module:
    return scrub(model, gone(), kept(), generator=generator(), **settings)


def relabelling(model: nn.Module, **settings: Any) -> nn.Module:
    return amnesiac(model, gone(), kept(), classes=OTHERS, generator=generator(), **settings)


def anew(module: nn.Module) -> None:
    """Initialise what knows how; thresholds of neurons keep their value."""
    reset = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()


def made(how: Edit, network: Callable[[], nn.Module]) -> Any:
    return (how, network())


EDITS: tuple[Edit, ...] = (
    finetuning, retraining, ascent, ascent_and_descent, teaching, scrubbing, relabelling,
)  # fmt: skip
PARTS = [
    *(("edit", partial(made, how, mlp)) for how in EDITS),
    *(("edit", partial(made, finetuning, network)) for network in MODELS),
    *(("edit", partial(made, scrubbing, network)) for network in MODELS),
]


@pytest.fixture(scope="module")
def learned() -> nn.Module:
    return finetuned(mlp(), samples(400), epochs=20, generator=generator(), make_optimizer=FAST)


@pytest.mark.parametrize(
    ("how", "settings"),
    [
        (finetuning, {"epochs": 30}), (retraining, {"epochs": 40}), (ascent_and_descent, {"epochs": 12}),
        (teaching, {"epochs": 40}), (scrubbing, {"epochs": 20, "ascent_epochs": 15}),
        (relabelling, {"epochs": 40}),
    ],
    ids=["finetune", "retrain", "ascent", "teacher", "scrub", "amnesiac"],
)  # fmt: skip
def test_a_class_is_forgotten_and_the_rest_is_kept(
    how: Edit, settings: dict[str, Any], learned: nn.Module
) -> None:
    test = samples(200, seed=4)
    before = forgetting_scores(learned, part(test, True), part(test, False))
    after = forgetting_scores(
        how(learned, make_optimizer=FAST, **settings), part(test, True), part(test, False)
    )
    assert before.forget_accuracy > 0.95 and before.retain_accuracy > 0.95
    assert after.forget_accuracy < before.forget_accuracy - 0.25 or how is finetuning
    assert after.retain_accuracy > 0.9


@pytest.mark.parametrize("how", EDITS)
def test_only_the_chosen_layers_change_and_the_others_are_shared(how: Edit) -> None:
    net = mlp()
    edited = how(net, layers=["leave"])
    assert edited.enter.weight is net.enter.weight and edited.inner.bias is net.inner.bias
    assert not torch.equal(edited.leave.weight, net.leave.weight)


def test_statistics_of_frozen_normalization_do_not_move() -> None:
    net = convolutional()
    net(torch.rand(8, FEATURES))  # statistics other than the initial ones
    last = last_layers(net, 1)
    edited = finetuning(net, layers=last)
    assert last == ("7",) and edited[2].running_mean is net[2].running_mean
    whole = finetuning(net)
    assert not torch.equal(whole[2].running_mean, net[2].running_mean)


def test_a_pass_of_fine_tuning_is_the_loop_that_one_would_write() -> None:
    net = mlp()
    found = finetuned(net, kept(), batch_size=1000, epochs=3, make_optimizer=partial(torch.optim.SGD, lr=0.1))
    twin = mlp()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    x, y = kept().tensors
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(twin(x), y).backward()
        optimizer.step()
    for a, b in zip(found.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_ascent_is_descent_backwards() -> None:
    net, plain = mlp(), partial(torch.optim.SGD, lr=1e-3)
    up = gradient_ascent(net, gone(), batch_size=1000, make_optimizer=plain)
    down = finetuned(net, gone(), batch_size=1000, make_optimizer=plain)
    for a, b, old in zip(up.parameters(), down.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(a - old, old - b, rtol=1e-3, atol=1e-7)


def test_what_was_forgotten_before_retraining_leaves_no_trace() -> None:
    """Retraining depends on what is kept, the seed and the architecture, not on the weights that it is given."""
    one, other = mlp(seed=1), mlp(seed=2)
    assert same(*(weights(retrained(net, kept(), epochs=2, generator=generator(4))) for net in (one, other)))


def test_the_divergence_by_hand() -> None:
    teacher, student = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    p, q = torch.tensor([2.0, 0.0]).div(2).softmax(0), torch.tensor([0.0, 2.0]).div(2).softmax(0)
    expected = 4 * (p * (p / q).log()).sum()
    torch.testing.assert_close(divergence(teacher, student, 2.0), expected)
    assert divergence(teacher, teacher, 3.0).abs() < 1e-6


def test_scrub_goes_away_on_what_is_to_go_and_stays_on_the_rest(learned: nn.Module) -> None:
    edited = scrubbing(learned, epochs=6, ascent_epochs=4, make_optimizer=FAST)

    def moved(data: TensorDataset) -> float:
        x = data.tensors[0]
        with torch.no_grad():
            return float(divergence(learned(x), edited(x), 1.0))

    assert moved(gone()) > 3 * moved(kept())


def test_labels_are_drawn_evenly_and_never_the_sample_s_own() -> None:
    data = TensorDataset(torch.zeros(6000, 1), torch.arange(6000) % 3)
    labels = relabelled(data, range(4), seed=1).labels()
    assert not bool((labels == data.tensors[1]).any())
    counts = torch.bincount(labels[data.tensors[1] == 0], minlength=4)
    assert counts[0] == 0 and bool(((counts[1:] - 2000 / 3).abs() < 4 * (2000 * 2 / 9) ** 0.5).all())


def test_a_bad_teacher_of_its_own_is_drawn_from_the_generator() -> None:
    net = mlp()
    a, b, c = (weights(bad_teacher(net, gone(), kept(), generator=generator(s))) for s in (1, 1, 2))
    assert same(a, b) and not same(a, c)


def test_labels_of_what_the_bad_teacher_sees_do_not_matter() -> None:
    net = mlp()
    unlabelled = TensorDataset(gone().tensors[0], torch.zeros_like(gone().tensors[1]))
    a, b = (weights(bad_teacher(net, data, kept(), generator=generator())) for data in (gone(), unlabelled))
    assert same(a, b)


def test_last_layers_look_through_parametrizations() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    assert last_layers(net, 1) == ("2",) and last_layers(net, 2) == ("0", "2")


class Own(nn.Module):
    """A module with parameters that cannot be initialised anew."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x


def test_what_is_refused() -> None:
    net = mlp()
    with pytest.raises(ConfigError, match="module '0' has parameters and no reset_parameters"):
        retrained(nn.Sequential(Own(), nn.Linear(FEATURES, CLASSES)), kept())
    with pytest.raises(UnknownNameError, match="did you mean 'leave'"):
        finetuned(net, kept(), layers=["leav"])
    with pytest.raises(ConfigError, match="epochs is 0"):
        finetuned(net, kept(), epochs=0)
    with pytest.raises(ConfigError, match="nothing to train"):
        finetuned(Branches().requires_grad_(False), kept())
    with pytest.raises(ConfigError, match="weight is 0"):
        gradient_ascent(net, gone(), kept(), weight=0.0)
    with pytest.raises(ConfigError, match="ascent_epochs=3, epochs=2"):
        scrub(net, gone(), kept(), ascent_epochs=3, epochs=2)
    with pytest.raises(ConfigError, match="temperature is -1"):
        bad_teacher(net, gone(), kept(), temperature=-1.0)
    with pytest.raises(ConfigError, match="at least two"):
        amnesiac(net, gone(), kept(), classes=[0])
    with pytest.raises(ConfigError, match="DataLoader"):
        amnesiac(net, gone(), DataLoader(kept()), classes=OTHERS)
    with pytest.raises(ConfigError, match="expected 1 to 3"):
        last_layers(net, 4)
    with pytest.raises(NonFiniteError, match="smaller learning rate"):
        finetuned(net, kept(), make_optimizer=partial(torch.optim.SGD, lr=1e30), epochs=3)
