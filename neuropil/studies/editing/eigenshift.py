"""EigenShift: a language model says some tokens less after a few directions of its head are damped.

In the published work LLaMA 2 says fewer toxic words; here a decoder of two blocks, trained on the bytes of source text,
writes fewer brackets, and what it would write is measured as probability on held-out text, not as samples. Directions
are ranked by how much farther hidden states go along them before brackets, in the direction in which they go there,
since the signs of singular vectors are arbitrary; the first direction, common to all tokens, is never damped.

What the evidence says, six seeds: brackets lose 12.5 % of their probability (9.4 to 15.6 %) at 5.4 % of the other
tokens' perplexity, 12.8 points more than by damping random directions (10.1 to 15.4) and 7.5 more than by damping units
of the hidden state, which cost less, 0.4 %. A shift of the hidden states along the difference of their means takes 66 %
at a cost of 5.9 %: prefer it where the model's forward pass may be changed. This edit is for when only a weight may be:
it costs one singular value decomposition, and nothing afterwards. Random directions were searched as often, and took
nothing at any setting.

What did not reproduce: statistics of whole layers do not rank more stably as experts than single units do. Rank
correlations between two halves of the text are 0.79 and 0.87, the other way round in every seed: here a layer gives
five numbers, and two layers are few to rank. The edit only dampens: it moves all tokens towards each other, so that
rare ones gain; digits, below one percent of this text, were written more often after it on development seeds, quotes
too.

On SmolLM2-135M, tried once and not tuned, the edit did not work: four directions damped to 0.6 left brackets in Python
12 % more likely and cost other tokens 16 % of perplexity. The shift took 17 % of them at 1 %, and 34 % at 16 %.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from neuropil import data
from neuropil.bench.claim import at_least, exceeds
from neuropil.bench.figures import LearningCurves, MetricStrip
from neuropil.bench.figures_trade import Matrices
from neuropil.bench.study import Outcome, Study, Trial, setting
from neuropil.editing import (
    OutputSubspaceEditor,
    damp_hidden,
    expert_scores,
    expert_stability,
    fit_output_subspace,
    replace_head,
    shift_mean_difference,
)
from neuropil.nn import Decoder, activation_sites, read_sites
from neuropil.studies.editing._decoder import VOCABULARY, DecoderSetting, trained_decoder
from neuropil.training import next_token_logits, windows_of

GROUPS = {
    "digits": "0123456789",
    "brackets": "()[]{}",
    "quotes": "\"'`",
    "operators": "=+-*/<>%",
    "capitals": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
}
TEXT = "python"
BUDGET = 0.10  # growth of the perplexity of other tokens that an edit may cost


@dataclass(frozen=True)
class EditSetting(DecoderSetting):
    """Which tokens are undesired, and how strong the edit is."""

    group: str = setting("brackets", "tokens to be said less", choices=tuple(GROUPS))
    fit_samples: int = setting(
        200, "stretches of training text that the edit is fitted on", low=4, high=100_000
    )
    test_samples: int = setting(200, "stretches of held-out text that it is judged by", low=4, high=100_000)
    components: int = setting(4, "directions, or units of the hidden state, that are damped", low=1, high=64)
    damping: float = setting(0.6, "what is left of them", low=0.0, high=1.0)


@dataclass(frozen=True)
class ShiftSetting(DecoderSetting):
    """Settings of the shift along the mean difference."""

    group: str = setting("brackets", "tokens to be said less", choices=tuple(GROUPS))
    fit_samples: int = setting(
        200, "stretches of training text that the edit is fitted on", low=4, high=100_000
    )
    test_samples: int = setting(200, "stretches of held-out text that it is judged by", low=4, high=100_000)
    strength: float = setting(0.5, "how far states are pulled back", low=0.0, high=10.0)


class States(NamedTuple):
    """Final hidden states of one split, and which token follows each."""

    hidden: Tensor  # [n, width]
    following: Tensor  # [n]


class Judged(NamedTuple):
    """A model on held-out text, teacher-forced."""

    mass: float  # mean probability of the group
    perplexity: float  # on tokens outside the group
    by_token: Tensor  # mean probability of every token, [vocabulary]


def trial(trial: Trial) -> Outcome:
    """Edit the decoder of the seed and judge it on held-out text."""
    config: Any = trial.config
    text = data.load_text(TEXT)
    draw = windows_of(text.train, config.context, config.batch_size)
    model = trained_decoder(config, trial.seed, draw, {"text": text.checksum})
    generator = torch.Generator().manual_seed(trial.seed + 1)  # of the text, the same in all arms
    started = time.perf_counter()
    windows = data.text_windows(text.train, config.context + 1, config.fit_samples, generator)
    states = final_states(model, windows)
    wanted = group_mask(config.group)
    undesired = states.hidden[wanted[states.following]]
    ordinary = states.hidden[~wanted[states.following]]
    edited = EDITS[trial.arm](config, model, undesired, ordinary, torch.Generator().manual_seed(trial.seed))
    seconds = time.perf_counter() - started
    held_out = getattr(text, trial.evaluate_on)
    windows = data.text_windows(held_out, config.context + 1, config.test_samples, generator)
    before, after = judge(model, windows, wanted), judge(edited, windows, wanted)
    reduction, growth = 1 - after.mass / before.mass, after.perplexity / before.perplexity - 1
    metrics: dict[str, float | None] = {
        "reduction": reduction,
        "perplexity_growth": growth,
        "within_budget": BUDGET - growth,
        "score": reduction if growth <= BUDGET else -growth,
        "mass_before": before.mass,
        "perplexity_before": before.perplexity,
    }
    arrays: dict[str, Any] = {}
    if trial.arm == "eigenshift" and trial.evaluate_on == "test":
        metrics |= _stability(model, windows, wanted)
    arrays["tokens"] = _shares(before, after, wanted)
    curves = {} if trial.arm != "eigenshift" else _spectrum(model, undesired, ordinary)
    return Outcome(metrics, {"seconds": seconds}, curves, arrays)


def group_mask(name: str) -> Tensor:
    """Which tokens `[vocabulary]` belong to a group."""
    mask = torch.zeros(VOCABULARY, dtype=torch.bool)
    mask[data.as_bytes(GROUPS[name])] = True
    return mask


def final_states(model: nn.Module, windows: Tensor) -> States:
    """What enters the head before every token of some stretches of text but the first."""
    hidden = read_sites(model, windows[:, :-1], sites=["hidden"])["hidden"]
    return States(hidden.flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def judge(model: nn.Module, windows: Tensor, group: Tensor) -> Judged:
    """Probability of the group, and perplexity where another token follows."""
    logs = next_token_logits(model, windows).flatten(0, 1).log_softmax(-1)
    following = windows[:, 1:].flatten()
    probability = logs.exp().mean(0)
    others = ~group[following]
    loss = nn.functional.nll_loss(logs[others], following[others])
    return Judged(float(probability[group].sum()), math.exp(float(loss)), probability)


def _eigenshift(
    config: Any, model: Decoder, undesired: Tensor, ordinary: Tensor, _: torch.Generator
) -> nn.Module:
    editor = fit_output_subspace(model, undesired, ordinary)
    return editor.apply(model, config.components, config.damping)


def _random(
    config: Any, model: Decoder, undesired: Tensor, ordinary: Tensor, generator: torch.Generator
) -> nn.Module:
    """As many directions, drawn anew: the ablation of the ranking. The first, common to all, is left out here too."""
    editor = fit_output_subspace(model, undesired, ordinary)
    drawn = 1 + torch.randperm(len(editor.singular_values) - 1, generator=generator)[: config.components]
    return replace_head(model, editor.weight(drawn.tolist(), config.damping))


def _neurons(
    config: Any, model: Decoder, undesired: Tensor, ordinary: Tensor, _: torch.Generator
) -> nn.Module:
    """Units of the hidden state that tell undesired from ordinary best, by the difference in standard deviations."""
    spread = (undesired.var(0) / 2 + ordinary.var(0) / 2).sqrt().clamp_min(1e-6)
    telling = ((undesired.mean(0) - ordinary.mean(0)) / spread).abs()
    return damp_hidden(model, telling.topk(config.components).indices.tolist(), config.damping)


def _mean_difference(
    config: Any, model: Decoder, undesired: Tensor, ordinary: Tensor, _: torch.Generator
) -> nn.Module:
    return shift_mean_difference(model, undesired, ordinary, config.strength)


EDITS: dict[str, Callable[[Any, Decoder, Tensor, Tensor, torch.Generator], nn.Module]] = {
    "eigenshift": _eigenshift,
    "random": _random,
    "neurons": _neurons,
    "mean_difference": _mean_difference,
}


def _stability(model: Decoder, windows: Tensor, group: Tensor) -> dict[str, float | None]:
    """Rank correlation of expert scores between halves of the text: single units, and statistics of whole layers."""
    sites = [name for name in activation_sites(model) if "." in name]
    scores: dict[str, list[Tensor]] = {"units": [], "layers": []}
    for half in windows[:40].chunk(2):
        seen = read_sites(model, half[:, :-1], sites=sites)
        undesired = group[half[:, 1:].flatten()]
        flat = [seen[name].flatten(0, 1) for name in sites]
        whole = [torch.stack((x.norm(dim=1), x.mean(1), x.amax(1), x.amin(1), x.std(1)), 1) for x in flat]
        scores["units"].append(expert_scores(torch.cat(flat, 1), undesired))
        scores["layers"].append(expert_scores(torch.cat(whole, 1), undesired))
    return {f"{kind}_stability": expert_stability(*both).rank_correlation for kind, both in scores.items()}


def _spectrum(model: Decoder, undesired: Tensor, ordinary: Tensor) -> dict[str, list[float | None]]:
    editor: OutputSubspaceEditor = fit_output_subspace(model, undesired, ordinary)
    return {
        "singular_values": [round(value, 4) for value in editor.singular_values.tolist()],
        "difference": [round(value, 4) for value in editor.difference.tolist()],
    }


def _shares(before: Judged, after: Judged, group: Tensor) -> list[list[float]]:
    """What is left of the probability of each of the group's tokens, as a matrix of one row."""
    left = after.by_token[group] / before.by_token[group]
    return [[round(min(1.0, value), 4) for value in left.tolist()]]


def _checksum(config: Any) -> str:
    return data.load_text(TEXT).checksum


_EDIT = {"components": (2, 4), "damping": (0.3, 0.6)}

study = Study(
    id="eigenshift",
    summary=(
        "A small language model of source text shall write fewer brackets. The directions of its head that are used "
        "most before brackets are damped, without training; random directions, units and a shift of states compete."
    ),
    citation="""@inproceedings{shaik2025redefining,
  title     = {Redefining Experts: Interpretable Decomposition of Language Models for Toxicity Mitigation},
  author    = {Shaik, Zuhair Hasan and Mazhar, Abdullah and Srivastava, Aseem and Akhtar, Md Shad},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2025}
}""",
    arms={
        "eigenshift": EditSetting(),
        "random": EditSetting(),
        "neurons": EditSetting(),
        "mean_difference": ShiftSetting(),
    },
    search={
        "eigenshift": _EDIT,
        "random": _EDIT,
        "neurons": {"components": (2, 8), "damping": (0.3, 0.6)},
        "mean_difference": {"strength": (0.1, 0.25, 0.5, 1.0)},
    },
    objective="score",
    tune_trials=4,
    seeds=6,
    trial=trial,
    data=_checksum,
    claims=(
        exceeds(
            "eigenshift.reduction", "random.reduction", by=0.1, primary=True,
            text="brackets lose at least 10 points more of their probability than by damping random directions",
        ),
        at_least("eigenshift.within_budget", 0.0, text="other tokens' perplexity grows by at most 10 %"),
        at_least("eigenshift.reduction", 0.08, text="brackets lose at least 8 % of their probability"),
        exceeds(
            "eigenshift.reduction", "neurons.reduction", by=0.0, text="more than by damping units of the hidden state"
        ),
        exceeds(
            "mean_difference.reduction", "eigenshift.reduction", by=0.1,
            text="the shift along the mean difference takes at least 10 points more than the published edit",
        ),
        exceeds(
            "eigenshift.layers_stability", "eigenshift.units_stability", by=0.0,
            text="statistics of whole layers rank more stably as experts than single units do",
        ),
    ),
    scales={
        "smoke": {"width": 16, "layers": 1, "context": 24, "steps": 12, "batch_size": 8, "fit_samples": 60,
            "test_samples": 60,
        },
    },
    figures=(
        MetricStrip("reduction", title="Share of the brackets' probability that is gone"),
        MetricStrip("perplexity_growth", title="What it costs the other tokens' perplexity"),
        Matrices(
            "tokens", "What is left of each bracket", "Share of each token's probability that the edit leaves.",
            x="undesired token", y="",
        ),
        LearningCurves(
            "difference", title="Which directions carry brackets", x_title="singular direction", y_title="difference",
            caption="How much farther hidden states go along each singular direction of the head before brackets.",
        ),
        LearningCurves("singular_values", title="Singular values of the head", x_title="direction"),
    ),
    notes=(__doc__ or "").partition("\n\n")[2],  # above, where words do not make the evidence stale
)  # fmt: skip
