"""The edited head against the singular value decomposition written out, and edits on models of one's own."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from neuropil.editing import (
    MeanDifferenceShift,
    damp_hidden,
    expert_scores,
    expert_stability,
    fit_output_subspace,
    shift_mean_difference,
)
from neuropil.errors import ConfigError, DataError, NonFiniteError, ShapeError
from neuropil.nn import Decoder, read_sites

TOKENS = torch.randint(20, (3, 9), generator=torch.Generator().manual_seed(1))


def decoder(tied: bool = False) -> Decoder:
    torch.manual_seed(0)
    return Decoder(20, width=8, layers=2, heads=2, tied=tied)


def states(seed: int = 2, width: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shift = 2 * torch.randn(width, generator=generator)
    return torch.randn(30, width, generator=generator) + shift, torch.randn(40, width, generator=generator)


def eigenshift() -> Any:
    model = decoder()
    return partial(fit_output_subspace(model, *states()).apply, components=2, damping=0.3), model, TOKENS


def untied() -> Any:
    model = decoder(tied=True)
    return partial(fit_output_subspace(model, *states()).apply, components=1, damping=0.0), model, TOKENS


def shifted() -> Any:
    model = decoder()
    hidden = read_sites(model, TOKENS, sites=["hidden"])["hidden"].flatten(0, 1)
    return (
        lambda given: shift_mean_difference(
            given, *(s.to(given.head.weight) for s in (hidden[:9], hidden[9:]))
        ),
        model,
        TOKENS,
    )


def neurons() -> Any:
    return partial(damp_hidden, units=[1, 4], damping=0.5), decoder(), TOKENS


PARTS = [
    ("edit", eigenshift),
    ("edit", untied),
    ("edit", shifted),
    ("edit", neurons),
    ("analysis", lambda: partial(expert_stability, torch.rand(12), torch.rand(12))),
]


def test_the_edited_head_is_the_decomposition_written_out() -> None:
    model, (undesired, ordinary) = decoder(), states()
    editor = fit_output_subspace(model, undesired, ordinary)
    weight = model.head.weight.detach().numpy().astype(np.float64)
    u, s, vt = np.linalg.svd(weight, full_matrices=False)
    first, second = (vt @ x.numpy().mean(0) for x in (undesired, ordinary))
    difference = np.sign(first) * (first - second)
    order = 1 + np.argsort(-difference[1:])
    assert editor.ranked() == order.tolist()
    np.testing.assert_allclose(editor.difference.numpy(), difference, rtol=1e-3, atol=1e-5)
    s[order[:3]] *= 0.4
    edited = editor.apply(model, components=3, damping=0.4)
    np.testing.assert_allclose(edited.head.weight.detach().numpy(), (u * s) @ vt, rtol=1e-3, atol=1e-6)


def test_logits_change_only_along_the_damped_directions() -> None:
    model = decoder().double()
    editor = fit_output_subspace(model, *states())
    chosen = editor.ranked()[:2]
    edited = editor.apply(model, components=2, damping=0.0)
    hidden = torch.randn(50, 8, dtype=torch.double)
    kept = hidden - hidden @ editor.right[chosen].mT @ editor.right[chosen]
    torch.testing.assert_close(edited.head(hidden), model.head(kept))
    torch.testing.assert_close(edited.head(kept), model.head(kept))


def test_signs_of_singular_vectors_do_not_matter() -> None:
    editor = fit_output_subspace(decoder(), *states())
    flipped = type(editor)(
        -editor.left, editor.singular_values, -editor.right, -editor.undesired, -editor.ordinary
    )
    torch.testing.assert_close(editor.difference, flipped.difference)
    assert editor.ranked("magnitude") == flipped.ranked("magnitude")


def test_a_planted_direction_is_found_and_its_tokens_fall() -> None:
    """A head in which one direction alone says token 7: damping it takes token 7's probability and no other's."""
    model = decoder()
    basis = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(5)))[0]
    weight = torch.zeros(20, 8)
    weight[0], weight[7] = 9 * basis[0], 5 * basis[1]
    weight[1:4] = basis[2:5]
    with torch.no_grad():
        model.head.weight.copy_(weight)
    undesired, ordinary = 2 * basis[1].expand(10, 8), 2 * basis[2].expand(10, 8)
    editor = fit_output_subspace(model, undesired, ordinary)
    assert editor.ranked()[0] == 1
    edited = editor.apply(model, components=1, damping=0.1)
    before, after = model.head(undesired[:1]).softmax(-1)[0], edited.head(undesired[:1]).softmax(-1)[0]
    assert before[7] > 0.99 and after[7] < 0.2
    torch.testing.assert_close(edited.head(ordinary[:1]), model.head(ordinary[:1]), atol=1e-5, rtol=0)


def test_a_tied_embedding_is_left_alone() -> None:
    model = decoder(tied=True)
    edited = fit_output_subspace(model, *states()).apply(model, 2, 0.0)
    assert edited.embedding.weight is model.embedding.weight and model.head.weight is model.embedding.weight
    assert not torch.equal(edited.head.weight, edited.embedding.weight)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_it_edits_huggingface_models(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    if kind == "llama":
        model: Any = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=20, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                tie_word_embeddings=True,
            )
        ).eval()  # fmt: skip
    else:
        config = transformers.GPT2Config(vocab_size=20, n_embd=8, n_layer=2, n_head=2, n_positions=20)
        model = transformers.GPT2LMHeadModel(config).eval()
    editor = fit_output_subspace(model, *states())
    edited = editor.apply(model, 2, 0.0)
    with torch.no_grad():
        hidden = read_sites(model, TOKENS, sites=["hidden"])["hidden"]
        expected = hidden @ editor.weight(editor.ranked()[:2], 0.0).mT
        torch.testing.assert_close(edited(TOKENS).logits, expected)
    assert edited.get_input_embeddings().weight is model.get_input_embeddings().weight


def test_the_shift_stops_at_the_threshold_and_leaves_other_directions() -> None:
    shift, x = MeanDifferenceShift(torch.tensor([3.0, 4.0, 0.0]), threshold=1.0), torch.randn(50, 3)
    along = torch.tensor([0.6, 0.8, 0.0])
    torch.testing.assert_close(shift(x) @ along, (x @ along).clamp_max(1.0))
    across = x - (x @ along)[:, None] * along
    torch.testing.assert_close(shift(x) - (shift(x) @ along)[:, None] * along, across)


def test_expert_scores_are_areas_under_the_curve_and_stability_is_spearmans() -> None:
    generator = torch.Generator().manual_seed(3)
    activity = torch.randint(6, (40, 5), generator=generator).float()
    undesired = torch.rand(40, generator=generator) < 0.3
    scores = expert_scores(activity, undesired)
    expected = [roc_auc_score(undesired.numpy(), activity[:, i].numpy()) for i in range(5)]
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-6)
    first = torch.rand(30, generator=generator)
    assert expert_stability(first, first.exp()).rank_correlation == 1
    assert expert_stability(first, -first).rank_correlation == -1
    scipy = pytest.importorskip("scipy.stats")
    second = (4 * first + 3 * torch.rand(30, generator=generator)).round()
    found = expert_stability(first, second).rank_correlation
    assert found == pytest.approx(scipy.spearmanr(first.numpy(), second.numpy()).statistic, abs=1e-9)
    assert expert_stability(first, torch.ones(30)).rank_correlation == 0


def test_bad_input_is_one_line() -> None:
    model, (undesired, ordinary) = decoder(), states()
    editor = fit_output_subspace(model, undesired, ordinary)
    broken = undesired.clone()
    broken[0, 0] = torch.nan
    for error, word, call in (
        (ShapeError, "expected \\[n, 8\\]", lambda: fit_output_subspace(model, undesired[:, :5], ordinary)),
        (DataError, "no ordinary", lambda: fit_output_subspace(model, undesired, ordinary[:0])),
        (NonFiniteError, "undesired states", lambda: fit_output_subspace(model, broken, ordinary)),
        (ConfigError, "components is 9", lambda: editor.apply(model, 9)),
        (ConfigError, "damping is 2", lambda: editor.apply(model, 2, 2.0)),
        (ConfigError, "did you mean 'difference'", lambda: editor.ranked("diference")),
        (ConfigError, "no direction 8", lambda: editor.weight([8], 0.5)),
        (ShapeError, "the head is", lambda: editor.apply(Decoder(21, width=8, layers=1, heads=2))),
        (ConfigError, "no unit 8", lambda: damp_hidden(model, [8], 0.5)),
        (DataError, "direction is zero", lambda: shift_mean_difference(model, ordinary, ordinary)),
        (DataError, "expected both", lambda: expert_scores(undesired, torch.ones(30, dtype=torch.bool))),
        (ShapeError, "\\[units\\] twice", lambda: expert_stability(torch.rand(3), torch.rand(4))),
    ):
        with pytest.raises(error, match=word) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_head_of_a_model_of_ones_own() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 8)
            self.blocks = nn.ModuleList(
                nn.ModuleDict({"up": nn.Linear(8, 16), "down": nn.Linear(16, 8)}) for _ in range(2)
            )
            self.head = nn.Linear(8, 20)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embedding(tokens)
            for block in self.blocks:
                x = x + block["down"](torch.relu(block["up"](x)))
            output: Tensor = self.head(x)
            return output

    model = Own()
    edited = fit_output_subspace(model, *states()).apply(model, 2, 0.0)
    assert edited.head.bias is model.head.bias and not torch.equal(edited(TOKENS), model(TOKENS))
