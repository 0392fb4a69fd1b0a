"""The compiled run is held against a step-by-step definition, the definition against the window of one pair."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from neuropil.errors import ConfigError, DataError, ShapeError, StateError
from neuropil.kernels import compiled
from neuropil.kernels.stdp import PlasticState, rest_state, stdp_lif_scan, stdp_scan
from neuropil.kernels.stdp_op import plastic
from neuropil.kernels.stdp_rules import PairSTDP, RewardSTDP, TraceHebbian, TripletSTDP

RULES = [
    PairSTDP(0.0, 1.0, 0.05, 0.04, 0.8, 0.7),
    PairSTDP(-0.2, 0.9, 0.3, 0.2, 0.8, 0.7, "multiplicative"),
    TripletSTDP(0.0, 1.0, 0.02, 0.03, 0.8, 0.7, "additive", 0.05, 0.04, 0.95, 0.9),
    TripletSTDP(0.0, 1.0, 0.02, 0.03, 0.8, 0.7, "multiplicative", 0.05, 0.0),
    TraceHebbian(0.0, 1.0, 0.1, 0.4, 0.8),
    TraceHebbian(0.0, 1.0, 0.1, 0.4, 0.8, "multiplicative"),
    RewardSTDP(0.0, 1.0, 0.5, 0.4, 0.8, 0.7, 0.9, 0.2),
    RewardSTDP(0.0, 1.0, 0.5, 0.4, 0.8, 0.7, 0.0, 0.2),
]


def problem(rule, steps=60, inputs=13, outputs=19, rate=0.2, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pre = (torch.rand(steps, inputs, generator=generator) < rate).to(dtype)
    post = (torch.rand(steps, outputs, generator=generator) < rate).to(dtype)
    where = torch.rand(outputs, inputs, generator=generator, dtype=torch.float64).to(dtype)
    weight = rule.minimum + (rule.maximum - rule.minimum) * where
    reward = torch.randn(steps, generator=generator).to(dtype) * (
        torch.rand(steps, generator=generator) < 0.3
    )
    return pre, post, weight, reward if isinstance(rule, RewardSTDP) else None


def plain(call):
    """What plain torch says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "HAS_NUMBA", False)
        return call()


def leaves(run):
    return [run.spikes, run.weight, *run.state]


@pytest.mark.parametrize("lag", [-30, -3, -1, 0, 1, 4, 40])
def test_window_of_a_single_pair_is_the_closed_form(lag):
    rule = PairSTDP(potentiation=0.1, depression=0.2, pre_decay=0.9, post_decay=0.8)
    pre, post = torch.zeros(2, 100, 1, dtype=torch.float64)
    pre[45], post[45 + lag] = 1, 1
    weight = torch.full((1, 1), 0.5, dtype=torch.float64)
    change = stdp_scan(pre, post, weight, rule).weight - weight
    wanted = 0.1 * 0.9**lag if lag >= 0 else -0.2 * 0.8**-lag
    assert_close(change.item(), wanted, rtol=1e-12, atol=1e-15)
    bounded = PairSTDP(
        potentiation=0.1, depression=0.2, pre_decay=0.9, post_decay=0.8, bounds="multiplicative"
    )
    assert_close(
        (stdp_scan(pre, post, weight, bounded).weight - weight).item(), wanted / 2, rtol=1e-12, atol=1e-15
    )


def test_triplets_are_the_closed_form():
    rule = TripletSTDP(-9.0, 9.0, 0.1, 0.2, 0.9, 0.8, "additive", 0.3, 0.4, 0.95, 0.85)
    spikes = torch.zeros(30, 1, dtype=torch.float64)
    pre, post, weight = spikes.clone(), spikes.clone(), torch.zeros(1, 1, dtype=torch.float64)
    post[[2, 10]], pre[6] = 1, 1  # post, pre, post
    wanted = -0.2 * 0.8**4 + 0.9**4 * (0.1 + 0.3 * 0.85**8)
    assert_close(stdp_scan(pre, post, weight, rule).weight.item(), wanted, rtol=1e-12, atol=0)
    wanted = 0.1 * 0.9**4 - 0.8**4 * (0.2 + 0.4 * 0.95**8)  # pre, post, pre
    assert_close(stdp_scan(post, pre, weight, rule).weight.item(), wanted, rtol=1e-12, atol=0)


def test_reward_pays_what_the_fading_mark_is_worth():
    rule = RewardSTDP(-9.0, 9.0, 0.5, 0.4, 0.9, 0.8, 0.97, 0.1)
    pre, post, reward = torch.zeros(40, 1), torch.zeros(40, 1), torch.zeros(40)
    pre[5], post[8], reward[20], reward[30] = 1, 1, 2.0, -1.0
    run = stdp_scan(pre, post, torch.zeros(1, 1), rule, reward=reward)
    mark = 0.5 * 0.9**3
    assert_close(run.weight.item(), 0.1 * mark * (2 * 0.97**12 - 0.97**22), rtol=1e-5, atol=0)
    assert_close(run.state.eligibility.item(), mark * 0.97**31, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "rule", RULES, ids=lambda rule: f"{type(rule).__name__}-{getattr(rule, 'bounds', '')}"
)
def test_compiled_run_equals_the_definition(rule, dtype):
    pre, post, weight, reward = problem(rule, dtype=dtype)
    calls = [lambda: stdp_scan(pre, post, weight, rule, reward=reward)]
    if dtype == torch.float64:  # in single precision a spike may fall on the other side of rounding
        threshold = torch.linspace(0.3, 1.0, 19)
        for reset in ("subtract", "zero"):
            calls.append(
                lambda reset=reset: stdp_lif_scan(
                    pre, weight, rule, reward=reward, decay=0.7, threshold=threshold, reset=reset
                )
            )
    before = weight.clone()
    for call in calls:
        mine, wanted = call(), plain(call)
        assert mine.spikes.sum() > 50 and not torch.equal(mine.weight, weight)
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        for left, right in zip(leaves(mine), leaves(wanted), strict=True):
            assert left.dtype == dtype
            assert_close(left, right, rtol=tolerance, atol=tolerance)
        assert rule.minimum <= mine.weight.min() and mine.weight.max() <= rule.maximum
    assert torch.equal(weight, before)


@settings(max_examples=30, deadline=None)
@given(
    rule=st.sampled_from(RULES),
    steps=st.integers(0, 5),
    inputs=st.integers(0, 5),
    outputs=st.integers(0, 40),
    rate=st.sampled_from([0.0, 0.5, 1.0]),
    strided=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_shape_stride_and_rate(rule, steps, inputs, outputs, rate, strided, seed):
    pre, post, weight, reward = problem(rule, steps, inputs, outputs, rate, seed=seed)
    if strided:
        pre, post, weight = (tensor.mT.contiguous().mT for tensor in (pre, post, weight))

    def call():
        return stdp_scan(pre, post, weight, rule, reward=reward)

    for left, right in zip(leaves(call()), leaves(plain(call)), strict=True):
        assert_close(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_parts_of_a_run_equal_the_run(rule):
    pre, post, weight, reward = problem(rule)
    rewards = [None, None] if reward is None else [reward[:23], reward[23:]]
    whole = stdp_scan(pre, post, weight, rule, reward=reward)
    first = stdp_scan(pre[:23], post[:23], weight, rule, reward=rewards[0])
    second = stdp_scan(pre[23:], post[23:], first.weight, rule, first.state, rewards[1])
    assert_close(second.weight, whole.weight, rtol=1e-12, atol=1e-12)
    assert_close(list(second.state), list(whole.state), rtol=1e-12, atol=1e-12)


def test_threads_change_no_bit():
    rule, threads, results = RULES[2], torch.get_num_threads(), []
    pre, _, weight, _ = problem(rule, 80, 60, 200, dtype=torch.float32)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(stdp_lif_scan(pre, weight, rule, threshold=3.0))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(leaves(results[0]), leaves(other), strict=True))


def test_a_long_pause_loses_no_eligibility_to_underflow():
    rule = RewardSTDP(-9.0, 9.0, 1.0, 1.0, 0.5, 0.5, 0.5, 1.0)
    pre = post = torch.zeros(300, 1)
    pre = pre.clone()
    pre[[0, 299]], reward = 1, torch.zeros(300)
    post, reward[299] = pre.clone(), 1.0
    assert_close(stdp_scan(pre, post, torch.zeros(1, 1), rule, reward=reward).weight.item(), 1.0)


def test_operator_passes_opcheck():
    rule = RULES[2]
    pre, post, weight, _ = problem(rule, 4, 3, 5)
    one, none = torch.ones(5, dtype=torch.float64), pre[:0]
    rest = rest_state(weight, rule)
    traces = post.new_ones(4, 3)
    arguments = (pre, post, none[:, 0], traces, none, weight, rest.eligibility, rest.post, rest.slow_post)
    terms = [0.1, 0.0, 0.0, 0.9, 0.9, 0.0, 1.0, 1.0, 1.0]
    torch.library.opcheck(
        plastic, (*arguments, rest.membrane, one, one, [0.1, 0.0], terms, False, False, False)
    )


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p, q, w: stdp_scan(p, q[:1], w, RULES[0]), ShapeError, r"post is .* of shape \[1, 19\]"),
        (lambda p, q, w: stdp_scan(p[:, :2], q, w, RULES[0]), ShapeError, r"\[time, 13\]"),
        (lambda p, q, w: stdp_scan(0.5 * p, q, w, RULES[0]), DataError, "neither 0 nor 1"),
        (lambda p, q, w: stdp_scan(p, 0.5 * q, w, RULES[0]), DataError, "post has values that are neither"),
        (lambda p, q, w: stdp_scan(p, q, w + 5, RULES[0]), ConfigError, r"the rule keeps them in \[0, 1\]"),
        (lambda p, q, w: stdp_scan(p, q, w, RULES[6]), ConfigError, "a reward per step goes with RewardSTDP"),
        (lambda p, q, w: stdp_lif_scan(p, w, RULES[0], reset="zer"), ConfigError, "did you mean 'zero'"),
        (
            lambda p, q, w: stdp_scan(p, q, w, RULES[0], PlasticState(*rest_state(w[:3], RULES[0]))),
            StateError,
            r"state.post is torch.float64 of shape \[3\]",
        ),
        (lambda p, q, w: PairSTDP(pre_decay=1.0), ConfigError, r"PairSTDP.pre_decay: got 1.0"),
        (lambda p, q, w: PairSTDP(bounds="hard"), ConfigError, "choose from additive, multiplicative"),
        (lambda p, q, w: PairSTDP(minimum=2.0), ConfigError, "expected more than minimum"),
    ],
)
def test_bad_arguments_get_one_line(call, error, words):
    pre, post, weight, _ = problem(RULES[0])
    with pytest.raises(error, match=words) as caught:
        call(pre, post, weight)
    assert "\n" not in str(caught.value)
