"""The decoder against torch's own attention, and what a causal language model must keep."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, DataError, ShapeError
from neuropil.nn import CausalAttention, Decoder, DecoderBlock, FeedForward, generate, rotate


def block(**settings: Any) -> tuple[nn.Module, Tensor]:
    return DecoderBlock(8, 2, 12, **settings), torch.randn(3, 4, 8)


def feedforward(activation: str) -> tuple[nn.Module, Tensor]:
    return FeedForward(6, 10, activation), torch.randn(5, 6)


PARTS = [
    ("module", block),
    ("module", partial(block, activation="gelu", norm="layer", rotary=False)),
    ("module", partial(feedforward, "relu")),
    ("module", partial(feedforward, "geglu")),
]


def tokens(batch: int = 2, length: int = 9, vocabulary: int = 20) -> Tensor:
    return torch.randint(vocabulary, (batch, length), generator=torch.Generator().manual_seed(3))


def small(**settings: Any) -> Decoder:
    torch.manual_seed(0)
    return Decoder(20, width=16, layers=2, heads=4, **settings)


def test_attention_is_torchs() -> None:
    torch.manual_seed(0)
    ours, x = CausalAttention(12, 3, rotary=False), torch.randn(2, 7, 12)
    theirs = nn.MultiheadAttention(12, 3, bias=False, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat((ours.query.weight, ours.key.weight, ours.value.weight)))
        theirs.out_proj.weight.copy_(ours.output.weight)
    mask = nn.Transformer.generate_square_subsequent_mask(7)
    expected, pattern = theirs(x, x, x, attn_mask=mask, average_attn_weights=False)
    seen: list[Tensor] = []
    ours.pattern.register_forward_hook(lambda layer, args, output: seen.append(output))
    torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(seen[0], pattern)


@pytest.mark.parametrize("positions", ["rotary", "learned", "none"])
@pytest.mark.parametrize("activation", ["swiglu", "reglu", "relu", "silu"])
def test_no_token_sees_what_comes_after_it(positions: Any, activation: Any) -> None:
    model, x = small(positions=positions, activation=activation), tokens()
    changed = x.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 20
    before, after = model(x), model(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_rotary_products_depend_on_distance_only() -> None:
    query, key = torch.randn(2, 8, dtype=torch.double).unbind()
    product = rotate(query.expand(12, 8)) @ rotate(key.expand(12, 8)).mT
    for distance in range(-11, 12):
        diagonal = product.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    torch.testing.assert_close(rotate(query.expand(12, 8)).norm(dim=-1), query.norm().expand(12))


def test_without_positions_order_before_a_token_does_not_matter_and_with_them_it_does() -> None:
    x = tokens(1, 6)
    swapped = x[:, [1, 0, 2, 3, 4, 5]]
    for positions, same in (("none", True), ("rotary", False), ("learned", False)):
        torch.manual_seed(0)
        model = Decoder(20, width=16, layers=1, heads=4, positions=positions)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(5)
        assert torch.allclose(model(x)[:, -1], model(swapped)[:, -1], atol=1e-5) == same


def test_tied_head_is_the_embedding() -> None:
    model = small(tied=True)
    assert model.head.weight is model.embedding.weight
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in small().parameters()) - 320


def test_generation_is_greedy_at_zero_and_repeats_with_a_seed() -> None:
    model, x = small(), tokens(2, 3)
    longer = generate(model, x, 4, temperature=0)
    for place in range(3, 7):
        assert torch.equal(longer[:, place], model(longer[:, :place])[:, -1].argmax(-1))
    first, second = (generate(model, x, 5, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(first[:, :3], x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Decoder(width=10, heads=4),
        lambda: Decoder(width=6, heads=2),
        lambda: Decoder(layers=0),
        lambda: Decoder(activation="swigl"),
        lambda: Decoder(norm="batch"),
        lambda: Decoder(positions="rotatory"),
        lambda: generate(small(), tokens(), -1),
    ],
)
def test_bad_settings_are_one_line(make: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_bad_inputs_are_one_line() -> None:
    model = small(context=8)
    with pytest.raises(ShapeError, match="context of 8"):
        model(tokens(1, 9))
    with pytest.raises(ShapeError, match="whole numbers"):
        model(torch.rand(2, 3))
    with pytest.raises(DataError, match="token 20 is outside"):
        model(torch.tensor([[3, 20]]))
