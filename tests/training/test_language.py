"""A decoder learns what can be learned of a text, and trained weights are found again."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, DataError
from neuropil.nn import Decoder
from neuropil.training import kept_weights, logits_of, next_token_logits, train_language_model, windows_of


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def markov(length: int = 4000) -> tuple[Tensor, float]:
    """A chain that goes on by one with probability 3/4 and back by one otherwise, and its entropy a token."""
    steps = torch.where(torch.rand(length, generator=seeded(5)) < 0.75, 1, -1)
    return steps.cumsum(0) % 8, -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))


def test_it_learns_a_chain_to_its_entropy() -> None:
    torch.manual_seed(0)
    model = Decoder(8, width=16, layers=1, heads=2)
    tokens, entropy = markov()
    train_language_model(model, windows_of(tokens, 16, 32), steps=150, generator=seeded(), lr=1e-2)
    logits = next_token_logits(model, tokens[-1600:].reshape(-1, 16))
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[-1600:].reshape(-1, 16)[:, 1:].flatten())
    assert abs(float(loss) - entropy) < 0.05


def test_targets_of_minus_hundred_are_not_learned() -> None:
    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randint(4, (8, 5), generator=generator)
        targets = x.clone()  # to say each token again
        targets[:, ::2] = -100
        return x, targets

    results = []
    for poison in (0, 3):
        torch.manual_seed(0)
        model = Decoder(4, width=8, layers=1, heads=2)

        def poisoned(generator: torch.Generator, poison: int = poison) -> tuple[Tensor, Tensor]:
            x, targets = draw(generator)
            return x, torch.where(targets == -100, -100, targets + poison - poison)

        results.append(train_language_model(model, poisoned, steps=5, generator=seeded()))
    assert results[0] == results[1] and all(map(math.isfinite, results[0]))


def test_logits_are_those_of_one_pass_and_the_mode_is_left() -> None:
    torch.manual_seed(0)
    model, windows = Decoder(8, width=16, layers=1, heads=2).train(), torch.randint(8, (7, 6))
    torch.testing.assert_close(
        next_token_logits(model, windows, batch_size=3), logits_of(model, windows)[:, :-1]
    )
    assert model.training
    with pytest.raises(DataError, match="2 tokens"):
        next_token_logits(model, windows[:, :1])


def test_weights_are_kept_by_what_they_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path))
    trained = []

    def train(model: nn.Module) -> None:
        trained.append(model)
        nn.init.constant_(model.weight, 3.0)

    models = [nn.Linear(2, 2) for _ in range(4)]
    assert kept_weights(models[0], "toy", {"seed": 0}, train)
    assert not kept_weights(models[1], "toy", {"seed": 0}, train)
    assert torch.equal(models[0].weight, models[1].weight) and torch.equal(models[0].bias, models[1].bias)
    assert kept_weights(models[2], "toy", {"seed": 1}, train)
    assert kept_weights(nn.Linear(2, 3), "toy", {"seed": 0}, train)
    for path in (tmp_path / "models").iterdir():
        path.write_bytes(path.read_bytes()[:20])  # half a file is no file
    assert kept_weights(models[3], "toy", {"seed": 0}, train) and len(trained) == 4
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("in the way")
    assert kept_weights(models[3], "toy", {"seed": 0}, train)


def test_bad_settings_are_one_line() -> None:
    with pytest.raises(ConfigError, match="steps 0"):
        train_language_model(nn.Linear(2, 2), windows_of(torch.arange(9), 2, 2), steps=0, generator=seeded())
