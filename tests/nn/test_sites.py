"""Sites are what their names say, on the decoder, on Hugging Face's models and on one's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuropil.errors import IncompatibleError, UnknownNameError
from neuropil.nn import Decoder, activation_sites, attach, override_sites, read_sites, shared_copy


def decoder(activation: Any = "swiglu") -> nn.Module:
    torch.manual_seed(0)
    return Decoder(30, width=16, layers=2, heads=2, activation=activation)


def huggingface(kind: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=20)
        return transformers.GPT2LMHeadModel(config).eval()
    if kind == "opt":
        config = transformers.OPTConfig(
            vocab_size=30, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=20, word_embed_proj_dim=16,
        )  # fmt: skip
        return transformers.OPTForCausalLM(config).eval()
    config = transformers.LlamaConfig(
        vocab_size=30, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


MODELS = {
    "gated": decoder,
    "plain": lambda: decoder("relu"),
    "llama": lambda: huggingface("llama"),
    "gpt2": lambda: huggingface("gpt2"),
    "opt": lambda: huggingface("opt"),
}
every_model = pytest.mark.parametrize("kind", MODELS)
TOKENS = torch.randint(30, (2, 7), generator=torch.Generator().manual_seed(1))


class Times(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


def answer(model: nn.Module) -> Tensor:
    with torch.no_grad():
        output = model(TOKENS)
    return output if isinstance(output, Tensor) else output.logits


@every_model
def test_sites_hold_what_their_names_say(kind: str) -> None:
    model = MODELS[kind]()
    sites = activation_sites(model)
    gated = kind in ("gated", "llama")
    assert ("gate.1" in sites) == gated and "residual.2" not in sites
    seen = read_sites(model, TOKENS, sites=sites)
    assert torch.equal(seen["logits"], answer(model))
    head = model.get_submodule(sites["logits"].module)
    torch.testing.assert_close(head(seen["hidden"]), seen["logits"])
    for block in range(2):
        # the layer's own mathematics, from its pre-activations
        if gated:
            expected = nn.functional.silu(seen[f"gate.{block}"]) * seen[f"up.{block}"]
            torch.testing.assert_close(seen[f"key.{block}"], expected)
        else:
            act = (lambda x: nn.functional.gelu(x, approximate="tanh")) if kind == "gpt2" else torch.relu
            torch.testing.assert_close(seen[f"key.{block}"], act(seen[f"up.{block}"]))
        down = model.get_submodule(sites[f"key.{block}"].module)
        torch.testing.assert_close(down(seen[f"key.{block}"]), seen[f"feedforward.{block}"])
        assert seen[f"residual.{block}"].shape == (2, 7, 16)


@every_model
def test_an_override_acts_from_there_on_and_only_while_it_lasts(kind: str) -> None:
    model = MODELS[kind]()
    before = answer(model)
    plain = read_sites(model, TOKENS, sites=["residual.0", "residual.1"])
    with override_sites(model, {"key.1": torch.zeros_like, "residual.0": lambda x: x + 1}):
        seen = read_sites(model, TOKENS, sites=["residual.0", "feedforward.1"])
        assert not torch.equal(answer(model), before)
    torch.testing.assert_close(seen["residual.0"], plain["residual.0"] + 1)
    assert (
        seen["feedforward.1"] - seen["feedforward.1"].flatten(0, 1)[0]
    ).abs().max() < 1e-6  # a bias at most
    assert torch.equal(answer(model), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@every_model
def test_an_attached_part_belongs_to_the_model_and_to_its_copies(kind: str) -> None:
    model = MODELS[kind]()
    edited = shared_copy(model)
    attach(edited, "key.0", Times(0.1), "bend")
    before, after = answer(model), answer(edited)
    assert not torch.equal(before, after)
    assert sum(name.endswith("bend.weight") for name in edited.state_dict()) == 1
    assert not any("bend" in name for name in model.state_dict())
    twin = copy.deepcopy(edited)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if "bend" in name:
                parameter.fill_(1.0)
    assert torch.equal(answer(edited), after)
    torch.testing.assert_close(answer(twin), before)
    with pytest.raises(IncompatibleError, match="bend"):
        attach(edited, "key.0", nn.Identity(), "bend")


def test_what_has_no_such_sites_is_told_in_one_line() -> None:
    model = decoder()
    with pytest.raises(UnknownNameError, match="did you mean 'residual"):
        read_sites(model, TOKENS, sites=["residual.7"])
    for other in (nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))):
        with pytest.raises(IncompatibleError) as caught:
            activation_sites(other)
        assert "\n" not in str(caught.value)
