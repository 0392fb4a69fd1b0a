"""Spike-timing-dependent plasticity of one layer, a whole recording or a whole run in one call.

A presynaptic spike leaves a trace `x` in its neuron, a postsynaptic one a trace `y`; each decays by a factor per step
and grows by 1 per spike. Per step, with presynaptic spikes `s` and postsynaptic spikes `z`, weights first weaken and
then strengthen:

    w[j, i] -= s[i] * y[j] * (depression + triplet_depression * x_slow[i])        y, x_slow: before this step's spikes
    w[j, i] += z[j] * (x[i] - target) * (potentiation + triplet_potentiation * y_slow[j])
                                                         x: with this step's spikes, y_slow: before them

So a pair whose presynaptic spike comes `k >= 0` steps before the postsynaptic one strengthens by
`potentiation * pre_decay**k`, and one whose postsynaptic spike comes `k > 0` steps before weakens by
`depression * post_decay**k`. `bounds="additive"` clips weights to their range, `"multiplicative"` also scales what
strengthens by `maximum - w` and what weakens by `w - minimum`. Learning rules have no gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, get_args

import torch
from torch import Tensor

from neuropil.errors import ConfigError, DataError, ShapeError, StateError, nearest
from neuropil.kernels.compiled import serves
from neuropil.kernels.lanes import check_per_neuron
from neuropil.kernels.leaky import leaky_scan
from neuropil.kernels.lif import Reset
from neuropil.kernels.stdp_op import plastic
from neuropil.kernels.stdp_reference import plastic_reference
from neuropil.kernels.stdp_rules import RewardSTDP, Rule, Terms

if TYPE_CHECKING:
    from jaxtyping import Float


class PlasticState(NamedTuple):
    """What a plastic layer carries from one run to the next, beside its weight."""

    pre: Tensor  # [inputs], fast traces
    slow_pre: Tensor  # [inputs]
    post: Tensor  # [outputs]
    slow_post: Tensor  # [outputs]
    eligibility: Tensor  # [outputs, inputs] for RewardSTDP, else [0, inputs]
    membrane: Tensor  # [outputs], of the neurons of stdp_lif_scan


class PlasticRun(NamedTuple):
    """What a plastic layer did and became."""

    spikes: Tensor  # [time, outputs]
    weight: Tensor  # [outputs, inputs]
    state: PlasticState


def rest_state(weight: Float[Tensor, "outputs inputs"], rule: Rule) -> PlasticState:
    """No trace of any spike.

    >>> import torch
    >>> from neuropil.kernels.stdp_rules import PairSTDP
    >>> rest_state(torch.zeros(3, 2), PairSTDP()).post.tolist()
    [0.0, 0.0, 0.0]
    """
    outputs, inputs = weight.shape
    marks = outputs if isinstance(rule, RewardSTDP) else 0
    shapes = ((inputs,), (inputs,), (outputs,), (outputs,), (marks, inputs), (outputs,))
    return PlasticState(*(weight.new_zeros(shape) for shape in shapes))


def stdp_scan(
    pre: Float[Tensor, "time inputs"],
    post: Float[Tensor, "time outputs"],
    weight: Float[Tensor, "outputs inputs"],
    rule: Rule,
    state: PlasticState | None = None,
    reward: Float[Tensor, " time"] | None = None,
) -> PlasticRun:
    """Weight after spikes of both sides that are given; `reward` per step with `RewardSTDP` and only then.

    Raises ShapeError, StateError, ConfigError (weights outside the rule's range) or DataError (spikes not 0 or 1).

    >>> import torch
    >>> from neuropil.kernels.stdp_rules import PairSTDP
    >>> pre, post = torch.tensor([[1.0], [0.0], [0.0]]), torch.tensor([[0.0], [0.0], [1.0]])  # two steps apart
    >>> rule = PairSTDP(potentiation=0.1, pre_decay=0.5)
    >>> round(stdp_scan(pre, post, torch.tensor([[0.2]]), rule).weight.item(), 4)
    0.225
    """
    _check("stdp_scan", pre, weight, rule, reward)
    if post.shape != (len(pre), len(weight)) or post.dtype != weight.dtype:
        raise ShapeError(
            f"stdp_scan: post is {post.dtype} of shape {list(post.shape)}, pre and weight need "
            f"{weight.dtype} of shape {[len(pre), len(weight)]}"
        )
    if not ((post == 0) | (post == 1)).all():
        raise DataError("stdp_scan: post has values that are neither 0 nor 1")
    unused = weight.new_ones(1)
    return _run(pre, post, weight, rule, state, reward, unused, unused, driven=False, zero=False)


def stdp_lif_scan(
    pre: Float[Tensor, "time inputs"],
    weight: Float[Tensor, "outputs inputs"],
    rule: Rule,
    state: PlasticState | None = None,
    reward: Float[Tensor, " time"] | None = None,
    *,
    decay: float | Tensor = 0.9,
    threshold: float | Tensor = 1.0,
    reset: Reset = "subtract",
) -> PlasticRun:
    """Leaky integrate-and-fire neurons that learn while they run: spikes of every step, and the weight at the end.

    Membranes are those of `neuropil.kernels.lif` with the input `weight @ pre[t]`, taken before the step's changes.
    Raises as `stdp_scan`.

    >>> import torch
    >>> from neuropil.kernels.stdp_rules import PairSTDP
    >>> run = stdp_lif_scan(torch.ones(2, 1), torch.tensor([[0.6]]), PairSTDP(potentiation=0.1, pre_decay=0.5))
    >>> run.spikes.flatten().tolist(), round(run.weight.item(), 4)
    ([0.0, 1.0], 0.75)
    """
    caller = "stdp_lif_scan"
    if reset not in get_args(Reset):
        raise ConfigError(f"{caller}: reset={reset!r} is unknown{nearest(reset, get_args(Reset))}")
    _check(caller, pre, weight, rule, reward)
    decay, threshold = (
        torch.as_tensor(value, dtype=weight.dtype, device=weight.device) for value in (decay, threshold)
    )
    check_per_neuron(caller, "decay", decay, weight.shape[:1])
    check_per_neuron(caller, "threshold", threshold, weight.shape[:1])
    post = weight.new_empty(0, len(weight))
    zero = reset == "zero"
    return _run(pre, post, weight, rule, state, reward, decay, threshold, driven=True, zero=zero)


@torch.no_grad()
def _run(
    pre: Tensor,
    post: Tensor,
    weight: Tensor,
    rule: Rule,
    state: PlasticState | None,
    reward: Tensor | None,
    decay: Tensor,
    threshold: Tensor,
    *,
    driven: bool,
    zero: bool,
) -> PlasticRun:
    """Run compiled where that serves, else in plain torch."""
    terms = rule.terms()
    state = _check_state(state, weight, rule)
    reward = weight.new_empty(0) if reward is None else reward.to(weight.dtype)
    decay, threshold = decay.reshape(-1).expand(len(weight)), threshold.reshape(-1).expand(len(weight))
    run = _run_compiled if serves(pre, post, weight, reward, decay, threshold, *state) else plastic_reference
    spikes, weight, *carried = run(pre, post, weight, terms, state, reward, decay, threshold, driven, zero)
    return PlasticRun(spikes, weight, PlasticState(*carried))


def _run_compiled(
    pre: Tensor,
    post: Tensor,
    weight: Tensor,
    terms: Terms,
    state: PlasticState,
    reward: Tensor,
    decay: Tensor,
    threshold: Tensor,
    driven: bool,
    zero: bool,
) -> tuple[Tensor, ...]:
    """Traces of the inputs, which nothing acts back upon, then all that depends on the outputs."""
    x, last = _traces(pre, state.pre, terms.pre_decay)
    slow, slow_last = pre[:0], state.slow_pre
    if terms.triplet_depression:
        slow, slow_last = _traces(pre, state.slow_pre, terms.slow_pre_decay)
        slow = slow - pre
    spikes, weight, eligibility, fast, slow_post, membrane = plastic(
        pre,
        post,
        reward,
        x,
        slow,
        weight,
        state.eligibility,
        state.post,
        state.slow_post,
        state.membrane,
        decay,
        threshold,
        [terms.depression, terms.triplet_depression],
        [
            terms.potentiation,
            terms.triplet_potentiation,
            terms.target,
            terms.post_decay,
            terms.slow_post_decay,
            terms.minimum,
            terms.maximum,
            terms.eligibility_decay,
            terms.rate,
        ],
        terms.multiplicative,
        driven,
        zero,
    )
    return spikes, weight, last, slow_last, fast, slow_post, eligibility, membrane


def _traces(spikes: Tensor, start: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    traces, last = leaky_scan(spikes.unsqueeze(1), start.unsqueeze(0), spikes.new_tensor(decay))
    return traces.squeeze(1), last.squeeze(0)


def _check(caller: str, pre: Tensor, weight: Tensor, rule: Rule, reward: Tensor | None) -> None:
    """Refuse arguments that do not fit together."""
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ShapeError(
            f"{caller}: weight is {weight.dtype} of shape {list(weight.shape)}, expected floats [outputs, inputs]"
        )
    if pre.dim() != 2 or pre.shape[1] != weight.shape[1] or pre.dtype != weight.dtype:
        raise ShapeError(
            f"{caller}: pre is {pre.dtype} of shape {list(pre.shape)}, the weight needs "
            f"{weight.dtype} [time, {weight.shape[1]}]"
        )
    if isinstance(rule, RewardSTDP) != (reward is not None):
        raise ConfigError(f"{caller}: a reward per step goes with RewardSTDP, got {type(rule).__name__}")
    if reward is not None and reward.shape != pre.shape[:1]:
        raise ShapeError(f"{caller}: reward has shape {list(reward.shape)}, expected {list(pre.shape[:1])}")
    terms = rule.terms()
    low, high = (value.item() for value in weight.aminmax()) if weight.numel() else (terms.minimum,) * 2
    if not terms.minimum <= low <= high <= terms.maximum:
        raise ConfigError(
            f"{caller}: weights lie in [{low:.4g}, {high:.4g}], the rule keeps them in "
            f"[{terms.minimum:.4g}, {terms.maximum:.4g}]"
        )


def _check_state(state: PlasticState | None, weight: Tensor, rule: Rule) -> PlasticState:
    """`state`, or rest; StateError when it was made for another layer or rule."""
    rest = rest_state(weight, rule)
    if state is None:
        return rest
    for name, mine, wanted in zip(PlasticState._fields, state, rest, strict=True):
        if mine.shape != wanted.shape or mine.dtype != wanted.dtype:
            raise StateError(
                f"{type(rule).__name__}: state.{name} is {mine.dtype} of shape {list(mine.shape)}, "
                f"the weight needs {wanted.dtype} of shape {list(wanted.shape)}"
            )
    return state
