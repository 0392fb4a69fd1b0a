"""Neuron Adjust against the normal densities written out, the box against its definition, and both on other models."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuropil.editing import (
    ActivationProbe,
    KeySpaceDetector,
    KeySpaceGate,
    NeuronAdjust,
    SiteStatistics,
    abstain,
    neuron_adjust,
    pre_activations,
    prompt_keys,
    prune_neurons,
    skill_neurons,
    steering_key,
)
from neuropil.errors import ConfigError, DataError, NonFiniteError, ShapeError, UnknownNameError
from neuropil.nn import Decoder, generate, read_sites

FORGET = torch.randint(0, 8, (12, 9), generator=torch.Generator().manual_seed(1))
RETAIN = torch.randint(8, 20, (15, 9), generator=torch.Generator().manual_seed(2))


def decoder(**others: Any) -> Decoder:
    torch.manual_seed(0)
    model = Decoder(20, width=8, layers=2, heads=2, hidden=16, **others)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(20)  # as far from linear as a trained one
    return model.eval()


def llama() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=20, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        tie_word_embeddings=True, initializer_range=0.4, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def gpt2() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20, n_embd=8, n_layer=2, n_head=2, n_positions=20, initializer_range=0.4, bos_token_id=0,
        eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


def probed(model: nn.Module) -> tuple[dict[str, SiteStatistics], dict[str, SiteStatistics]]:
    found = []
    for tokens in (FORGET, RETAIN):
        probe = ActivationProbe(model)
        probe.update(tokens)
        found.append(probe.statistics)
    return found[0], found[1]


def adjusted() -> Any:
    model = decoder()
    return partial(neuron_adjust, forget=probed(model)[0], retain=probed(model)[1], share=0.2), model, FORGET


def pruned() -> Any:
    model = decoder(activation="relu", norm="layer", positions="learned")
    return partial(prune_neurons, neurons=skill_neurons(*probed(model), 0.3)), model, FORGET


def abstaining() -> Any:
    model = decoder()
    detector = KeySpaceDetector(1.2).fit(prompt_keys(model, FORGET))
    return partial(abstain, detector=detector, steer=steering_key(model, 3)), model, FORGET


def one_adjust() -> Any:
    generator = torch.Generator().manual_seed(4)
    forget, retain = (
        SiteStatistics(torch.randn(6, generator=generator), 0.5 + torch.rand(6, generator=generator), 50)
        for _ in range(2)
    )
    return NeuronAdjust(torch.tensor([0, 2, 3]), forget, retain), torch.randn(7, 6)


def one_gate() -> Any:
    keys = torch.randn(40, 5)
    return KeySpaceGate(KeySpaceDetector().fit(keys), torch.arange(5.0), prompt=2), keys.reshape(10, 4, 5)


PARTS = [
    ("edit", adjusted),
    ("edit", pruned),
    ("edit", abstaining),
    ("module", one_adjust),
    ("module", one_gate),
    (
        "estimator",
        partial(KeySpaceDetector, scale=0.5),
    ),  # at 1 and above nothing that it was fitted on is outside
]


@pytest.mark.parametrize("make", [decoder, llama, gpt2])
def test_the_probe_sees_what_the_sites_hold_in_batches_of_any_size(make: Any) -> None:
    model = make()
    sites = (*pre_activations(model), "key.1")
    probe = ActivationProbe(model, sites)
    where = torch.rand(FORGET.shape, generator=torch.Generator().manual_seed(3)) < 0.6
    for part, chosen in zip(FORGET.split([1, 7, 4]), where.split([1, 7, 4]), strict=True):
        probe.update(part, chosen)
    for name, seen in read_sites(model, FORGET, sites=sites).items():
        values = seen[where].double().numpy()
        found = probe.statistics[name]
        np.testing.assert_allclose(found.mean.numpy(), values.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.std.numpy(), values.std(0), rtol=1e-4, atol=1e-5)
        assert found.count == int(where.sum())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_chosen_neurons_are_those_raised_most_over_all_sites() -> None:
    means = {"up.0": torch.tensor([0.0, 3.0, -9.0]), "up.1": torch.tensor([5.0, 1.0, 2.0])}
    forget = {name: SiteStatistics(mean, torch.ones(3), 5) for name, mean in means.items()}
    retain = {name: SiteStatistics(torch.zeros(3), torch.ones(3), 5) for name in means}
    found = skill_neurons(forget, retain, share=0.5)
    assert {name: indices.tolist() for name, indices in found.items()} == {"up.0": [1], "up.1": [0, 2]}
    assert list(skill_neurons(forget, retain, share=1e-9)) == ["up.1"]


def test_adjustment_is_the_rule_written_out_with_densities() -> None:
    part, _ = one_adjust()
    x = 3 * torch.randn(4000, 6, generator=torch.Generator().manual_seed(5))
    y = part(x)
    scipy = pytest.importorskip("scipy.stats")
    for place, neuron in enumerate(part.neurons.tolist()):
        v = x[:, neuron].double().numpy()
        mf, sf, mr, sr = (
            float(t[place]) for t in (part.forget_mean, part.forget_std, part.retain_mean, part.retain_std)
        )
        pf, pr = scipy.norm.pdf(v, mf, sf), scipy.norm.pdf(v, mr, sr)
        mirrored = 2 * mr - ((v - mf) / sf * sr + mr)
        found = y[:, neuron].double().numpy()
        changed = found != v
        np.testing.assert_allclose(found[changed], mirrored[changed], rtol=1e-3, atol=1e-4)
        assert not changed[pf < pr * 0.9999].any()
        likely = pf > pr * 1.0001
        expected = (pf / (pf + pr))[likely]
        spread = np.sqrt((expected * (1 - expected)).sum())
        assert abs(changed[likely].sum() - expected.sum()) < 4 * spread + 1
    others = [n for n in range(6) if n not in part.neurons.tolist()]
    assert torch.equal(y[:, others], x[:, others])


def test_what_the_skill_drives_becomes_the_rest_mirrored() -> None:
    """Far apart, all of the skill's values change, and have the mean and the spread of the rest."""
    forget = SiteStatistics(torch.tensor([50.0]), torch.tensor([2.0]), 9)
    retain = SiteStatistics(torch.tensor([-3.0]), torch.tensor([0.5]), 9)
    x = 50 + 2 * torch.randn(5000, 1, generator=torch.Generator().manual_seed(6))
    y = NeuronAdjust(torch.tensor([0]), forget, retain)(x)
    torch.testing.assert_close(y, -3 - 0.5 * (x - 50) / 2)
    assert float(y.mean()) == pytest.approx(-3, abs=0.05) and float(y.std()) == pytest.approx(0.5, abs=0.03)


def test_draws_are_of_the_value_and_the_seed_alone() -> None:
    part, _ = one_adjust()
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(7))
    order = torch.randperm(300, generator=torch.Generator().manual_seed(8))
    assert torch.equal(part(x)[order], part(x[order]))
    state = torch.get_rng_state()
    other = NeuronAdjust(part.neurons, *_full(part), seed=1)(x)
    assert torch.equal(state, torch.get_rng_state())
    differ = (other != part(x))[:, part.neurons].float().mean(0)
    assert bool((differ > 0.02).all()) and bool((differ < 0.5).all())


def _full(part: NeuronAdjust) -> tuple[SiteStatistics, SiteStatistics]:
    found = []
    for kind in ("forget", "retain"):
        mean, std = torch.zeros(6), torch.ones(6)
        mean[part.neurons], std[part.neurons] = getattr(part, f"{kind}_mean"), getattr(part, f"{kind}_std")
        found.append(SiteStatistics(mean, std, 50))
    return found[0], found[1]


def test_the_box_is_the_smallest_that_holds_all_fitted_keys() -> None:
    keys = np.random.default_rng(0).normal(size=(60, 7)) * np.arange(1, 8)
    detector = KeySpaceDetector(scale=1.0).fit(keys)
    mean, std = keys.mean(0), keys.std(0)
    low, high = 0.0, 100.0
    for _ in range(80):  # bisection, as published
        middle = (low + high) / 2
        low, high = (low, middle) if (np.abs(keys - mean) <= middle * std).all() else (middle, high)
    assert detector.reach_ == pytest.approx(high, rel=1e-9)
    assert detector.contains(torch.from_numpy(keys)).sum() >= 59  # one lies on the face
    outside = np.tile(mean, (7, 1)) + np.eye(7) * std * detector.reach_ * 1.01
    assert not detector.contains(outside).any()
    assert KeySpaceDetector(scale=1.1).fit(keys).contains(outside).all()


def test_a_dimension_that_never_varied_must_be_met() -> None:
    keys = np.random.default_rng(0).normal(size=(30, 3))
    keys[:, 1] = 0.1
    detector = KeySpaceDetector(scale=3.0).fit(keys)
    probe = keys[:2].copy()
    probe[1, 1] += 1e-6
    assert detector.contains(probe).tolist() == [True, False]


@pytest.mark.parametrize("make", [decoder, llama, gpt2])
def test_queries_in_the_box_get_one_answer_and_all_others_theirs(make: Any) -> None:
    model = make()
    detector = KeySpaceDetector(1.01).fit(prompt_keys(model, FORGET[:, :4]))
    others = RETAIN[~detector.contains(prompt_keys(model, RETAIN[:, :4]))]
    assert len(others) > 3
    edited = abstain(model, detector, steering_key(model, 5, strength=1e5), prompt=4)
    with torch.no_grad():
        answers, before = (_logits(m(torch.cat((FORGET, others)))) for m in (edited, model))
    assert (answers[: len(FORGET), 3:].argmax(-1) == 5).all()
    assert torch.equal(answers[:, :3], before[:, :3])
    torch.testing.assert_close(answers[len(FORGET) :], before[len(FORGET) :])
    assert all(p is q for p, q in zip(model.parameters(), edited.parameters(), strict=True))


def _logits(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits


def test_the_steering_key_undoes_the_last_norms_gains_and_beats_longer_rows() -> None:
    """The token's row less the mean row points elsewhere once gains differ, and to longer rows beside it."""
    model = decoder()
    generator = torch.Generator().manual_seed(9)
    rows = torch.nn.functional.normalize(torch.randn(20, 8, generator=generator), dim=1)
    rows[7] = 1.5 * torch.nn.functional.normalize(rows[5] + rows[6], dim=0)  # longer, and close to 5
    with torch.no_grad():
        model.head.weight.copy_(rows)
        model.norm.weight.copy_(torch.tensor([3.0, -2.0, 0.5, 1.0, -4.0, 2.0, 0.3, 6.0]))
        detector = KeySpaceDetector(1e6).fit(prompt_keys(model, FORGET))
        for token in (0, 5, 12):
            edited = abstain(model, detector, steering_key(model, token, strength=1e5))
            assert (edited(FORGET)[:, -1].argmax(-1) == token).all()


def test_a_generated_answer_is_decided_once_at_the_prompt() -> None:
    model = decoder()
    detector = KeySpaceDetector(1.01).fit(prompt_keys(model, FORGET[:, :4]))
    edited = abstain(model, detector, steering_key(model, 5, strength=1e5), prompt=4)
    assert (generate(edited, FORGET[:, :4], 5, temperature=0)[:, 4:] == 5).all()


def test_a_huggingface_model_generates_through_the_edits() -> None:
    model = llama()
    detector = KeySpaceDetector(1.01).fit(prompt_keys(model, FORGET[:, :4]))
    edited = abstain(model, detector, steering_key(model, 5, strength=1e5))
    settings = {"max_new_tokens": 3, "do_sample": False, "attention_mask": torch.ones_like(FORGET[:, :4])}
    told = edited.generate(FORGET[:, :4], **settings)
    assert (told[:, 4] == 5).all()
    shifted = neuron_adjust(model, *probed(model), share=0.3)
    assert shifted.generate(FORGET[:, :4], **settings).shape == (12, 7)
    assert not torch.equal(shifted(FORGET).logits, model(FORGET).logits)


@pytest.mark.parametrize("make", [decoder, llama, gpt2])
def test_pruned_neurons_say_nothing(make: Any) -> None:
    model = make()
    site = pre_activations(model)[1]
    edited = prune_neurons(model, {site: torch.tensor([1, 4])})
    with torch.no_grad():
        found = read_sites(edited, FORGET, sites=["feedforward.1"])["feedforward.1"]
        key = read_sites(model, FORGET, sites=["key.1"])["key.1"]
        key[..., [1, 4]] = 0.0
        down = model.get_submodule({Decoder: "blocks.1.feedforward.down"}.get(type(model)) or _down(model))
        torch.testing.assert_close(found, down(key))


def _down(model: Any) -> str:
    return "model.layers.1.mlp.down_proj" if hasattr(model, "model") else "transformer.h.1.mlp.c_proj"


def test_bad_input_is_one_line() -> None:
    model = decoder()
    forget, retain = probed(model)
    part, _ = one_adjust()
    detector = KeySpaceDetector().fit(prompt_keys(model, FORGET))
    still = {name: SiteStatistics(s.mean, torch.zeros_like(s.std), 5) for name, s in forget.items()}
    for error, word, call in (
        (UnknownNameError, "no site", lambda: ActivationProbe(model, ["gate.9"])),
        (DataError, "no token was seen", lambda: ActivationProbe(model).statistics),
        (ShapeError, "where is", lambda: ActivationProbe(model).update(FORGET, torch.ones(2, 2, dtype=torch.bool))),
        (ConfigError, "share is 0", lambda: skill_neurons(forget, retain, 0)),
        (DataError, "expected the same", lambda: skill_neurons(forget, {}, 0.1)),
        (DataError, "never varies", lambda: neuron_adjust(model, still, retain)),
        (DataError, "nothing was probed", lambda: neuron_adjust(model, forget, retain, neurons={"up.0": part.neurons})),
        (ConfigError, "expected some of 0 to 5", lambda: NeuronAdjust(torch.tensor([6]), *_full(part))),
        (ConfigError, "expected some of 0 to 15", lambda: prune_neurons(model, {"gate.0": torch.tensor([16])})),
        (ConfigError, "scale is 0", lambda: KeySpaceDetector(0).fit(FORGET)),
        (ConfigError, "layer is 2", lambda: prompt_keys(model, FORGET, layer=2)),
        (ConfigError, "position is 9", lambda: prompt_keys(model, FORGET, position=9)),
        (ShapeError, "steer is", lambda: abstain(model, detector, torch.zeros(5))),
        (ShapeError, "those at 'key.1' have 24", lambda: abstain(
            Decoder(20, width=8, layers=2, heads=2, hidden=24), detector, torch.zeros(24))),
        (ConfigError, "prompt is 0", lambda: abstain(model, detector, torch.zeros(16), prompt=0)),
        (ConfigError, "token is 20", lambda: steering_key(model, 20)),
        (ConfigError, "strength is 0", lambda: steering_key(model, 2, strength=0)),
    ):  # fmt: skip
        with pytest.raises(error, match=word) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_broken_model_is_told() -> None:
    model = decoder()
    with torch.no_grad():
        model.blocks[0].feedforward.gate.weight[0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"gate\.0"):
        ActivationProbe(model).update(FORGET)
