"""Nested rhythms: the clock by hand, recall in numpy, rules with closed forms, oscillators with known fixed points."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from neuropil.errors import ConfigError, DataError, NonFiniteError, ShapeError
from neuropil.spiking import (
    PhasorNetwork,
    PhasorState,
    SequenceHopfield,
    ThetaGammaClock,
    modular_wiring,
    phase_coherence,
    store_sequence,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def patterns(length, units=200, seed=0):
    return torch.randint(2, (length, units), generator=seeded(seed)).float() * 2 - 1


def memory(**settings):
    weights = store_sequence(patterns(3, 8))
    return SequenceHopfield(*weights, gain=1.5, **settings), torch.randn(9, 4, 8)


def rhythmic():
    return memory(clock=ThetaGammaClock(slots=2, steps=2))


def late():
    return memory(delay=2, trace=0.3)


def oscillators():
    coupling = torch.randn(6, 6) / 3
    return PhasorNetwork(coupling, detuning=torch.randn(6), slot_phase=1.0, slot_strength=0.5), torch.randn(
        7, 3, 6
    )


def coherence():
    return partial(phase_coherence, torch.randn(12), torch.eye(3, dtype=torch.bool).repeat_interleave(4, 1))


PARTS = [
    ("module", rhythmic),
    ("module", memory),
    ("module", late),
    ("module", oscillators),
    ("analysis", coherence),
]


def test_the_clock_by_hand():
    clock = ThetaGammaClock(slots=3, steps=4, transition=2)
    gates = clock.gates(torch.arange(24))
    assert gates.drive.tolist() == gates.plasticity.tolist() == [1] * 12 + [0] * 12
    assert gates.hetero.tolist() == [0] * 16 + [1, 1, 0, 0] * 2
    assert (gates.auto + gates.hetero + gates.drive == 1).all()
    again = clock.gates(torch.arange(24, 48))
    assert all(torch.equal(a, b) for a, b in zip(gates, again, strict=True))


def test_pseudo_inverse_holds_every_item_and_its_successor():
    items = patterns(7, 50).double()
    items[1:] = torch.where(
        torch.rand(6, 50, generator=seeded(1)) < 0.8, items[0], items[1:]
    )  # alike, as images are
    auto, hetero = store_sequence(items)
    torch.testing.assert_close(items @ auto.mT, items)
    torch.testing.assert_close(items[:-1] @ hetero.mT, items[1:])
    torch.testing.assert_close(auto @ auto, auto)  # a projection
    assert torch.linalg.matrix_rank(hetero) == 6


def test_hebbian_connections_by_hand():
    auto, hetero = store_sequence(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), "hebb")
    assert auto.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert hetero.tolist() == [[0.5, 0.5], [-0.5, -0.5]]


def test_recall_follows_the_equations():
    items = patterns(3, 20).double()
    auto, hetero = store_sequence(items)
    module = SequenceHopfield(
        auto, hetero, clock=ThetaGammaClock(2, 3), gain=2.0, trace=0.4, delay=1, auto_strength=0.9,
        hetero_strength=1.3, input_strength=0.7,
    )  # fmt: skip
    x = torch.randn(15, 1, 20, generator=seeded(3), dtype=torch.double)
    found = module(x)[0][:, 0].numpy()
    W, V, u = auto.numpy(), hetero.numpy(), x[:, 0].numpy()
    s, before, trace = np.zeros(20), np.zeros(20), np.zeros(20)
    for t in range(15):
        place = t % 12
        if place < 6:
            pull = 0.7 * u[t]
        elif place == 9:
            pull = 1.3 * V @ trace
        else:
            pull = 0.9 * W @ s
        s = np.tanh(2.0 * pull)
        trace, before = trace + 0.4 * (before - trace), s
        np.testing.assert_allclose(found[t], s, rtol=1e-10, atol=1e-12)


def test_every_item_comes_in_its_gamma_cycle_and_in_no_other():
    items = patterns(6)
    for steps in (4, 7):  # at any tempo, with the same connections
        network = SequenceHopfield(*store_sequence(items), clock=ThetaGammaClock(7, steps))
        wrong = torch.rand(200, generator=seeded(1)) < 0.2
        activity = network.recall((items[0] * (1 - 2 * wrong.float()))[None], 6 * steps)
        overlap = activity[steps - 1 :: steps, 0].sign() @ items.mT / 200
        torch.testing.assert_close(overlap.diagonal(), torch.ones(6))
        assert (overlap - torch.eye(6)).abs().max() < 0.4


def test_storing_half_cycle_takes_the_input_and_nothing_else():
    items = patterns(4)
    network = SequenceHopfield(*store_sequence(items), clock=ThetaGammaClock(3, 5), gain=3.0)
    x = torch.randn(15, 2, 200, generator=seeded(5))
    torch.testing.assert_close(network(x)[0], torch.tanh(3.0 * x))


def test_a_delay_line_keeps_one_tempo():
    items = patterns(5)
    network = SequenceHopfield(*store_sequence(items), trace=1.0, delay=5, hetero_strength=3.0)
    activity = network.recall(items[:1], 25)[:, 0].sign()
    overlap = activity[4::5] @ items.mT / 200
    assert (overlap.diagonal() > 0.95).all()


def test_surprise_stores_until_nothing_surprises_and_ends_at_the_pseudo_inverse():
    items = patterns(4, 60).double()
    network = SequenceHopfield(torch.zeros(60, 60).double(), torch.zeros(60, 60).double())
    assert network.encode(items).tolist() == [True] * 4
    for _ in range(60):
        seen = network.encode(items, tolerance=-1.0)  # as if everything surprised
    auto, hetero = store_sequence(items)
    torch.testing.assert_close(network.auto, auto, atol=1e-6, rtol=0)
    torch.testing.assert_close(network.hetero, hetero, atol=1e-6, rtol=0)
    assert seen.all() and not network.encode(items).any()
    changed = items.clone()
    changed[2] = patterns(1, 60, seed=9)[0]
    assert network.encode(changed).tolist() == [False, False, True, True]  # the new one, and what it leads to


@pytest.mark.parametrize("modules", [1, 4])
def test_wiring_has_its_degree_and_modules(modules):
    wiring = modular_wiring(80, 10, modules=modules, within=0.8, generator=seeded())
    assert (wiring.sum(1) == 10).all() and not wiring.diagonal().any()
    module = torch.arange(80) * modules // 80
    own = (wiring & (module[:, None] == module)).sum(1)
    assert (own == (10 if modules == 1 else 8)).all()
    cut = store_sequence(patterns(3, 80), "hebb", wiring)
    assert not cut.auto[~wiring].any()
    full = store_sequence(patterns(3, 80), "hebb")
    torch.testing.assert_close(cut.hetero, full.hetero * wiring * 8)


def test_two_oscillators_lock_at_the_known_angle():
    # d(phase difference)/dt = difference of frequencies - 2 K sin(difference)
    network = PhasorNetwork(
        torch.tensor([[0.0, 0.5], [0.5, 0.0]]).double(), detuning=torch.tensor([0.6, 0.0]).double()
    )
    phases, _ = network(torch.zeros(2000, 1, 2).double())
    assert float(phases[-1, 0, 0] - phases[-1, 0, 1]) == pytest.approx(math.asin(0.6), abs=1e-6)
    free = PhasorNetwork(torch.zeros(2, 2).double(), detuning=torch.tensor([0.6, 0.0]).double())
    assert float(free(torch.zeros(100, 1, 2).double())[0][-1, 0, 0]) == pytest.approx(6.0)


def test_a_slot_holds_its_unit_and_repulsion_parts_two():
    alone = PhasorNetwork(torch.zeros(1, 1), detuning=0.3, slot_phase=2.0, slot_strength=1.0)
    phases, _ = alone(torch.zeros(500, 1, 1))
    assert float(phases[-1]) == pytest.approx(2.0 + math.asin(0.3), abs=1e-5)
    apart = PhasorNetwork(torch.tensor([[0.0, -1.0], [-1.0, 0.0]]))
    phases, _ = apart(torch.zeros(500, 1, 2), PhasorState(torch.tensor([[0.0, 0.1]])))
    assert float(phases[-1, 0].diff().abs()) == pytest.approx(math.pi, abs=1e-4)


def test_coherence_of_known_phases():
    items = torch.eye(3, dtype=torch.bool).repeat_interleave(2, 1)
    phases = torch.tensor([0.0, math.pi / 2, 2.0, 2.0, -2.0, -2.0])
    found = phase_coherence(phases, items)
    torch.testing.assert_close(
        found.within, torch.tensor([math.sqrt(0.5), 1.0, 1.0]).double(), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        found.phase, torch.tensor([math.pi / 4, 2.0, -2.0]).double(), atol=1e-6, rtol=0
    )
    centre = (np.exp(1j * math.pi / 4) + np.exp(2j) + np.exp(-2j)) / 3
    assert found.between == pytest.approx(abs(centre), abs=1e-6)


def test_what_does_not_fit_is_refused_in_one_line():
    items = patterns(3, 8)
    network = SequenceHopfield(*store_sequence(items))
    calls = [
        (ConfigError, "slots=0", lambda: ThetaGammaClock(slots=0)),
        (ConfigError, "transition=5", lambda: ThetaGammaClock(steps=5, transition=5)),
        (ConfigError, "did you mean 'hebb'", lambda: store_sequence(items, "heb")),
        (ShapeError, "two or more", lambda: store_sequence(items[:1])),
        (ShapeError, "mask", lambda: store_sequence(items, mask=torch.ones(3, 3))),
        (ConfigError, "gain=0", lambda: SequenceHopfield(*store_sequence(items), gain=0)),
        (ShapeError, "expected both", lambda: SequenceHopfield(torch.eye(3), torch.eye(4))),
        (DataError, "other than", lambda: network.encode(items / 2)),
        (ShapeError, "expected", lambda: network.encode(items[:, :3])),
        (ShapeError, r"\[time, batch, 8\]", lambda: network(torch.zeros(2, 1, 3))),
        (NonFiniteError, "input", lambda: network(torch.full((2, 1, 8), torch.nan))),
        (ConfigError, "in_degree=9", lambda: modular_wiring(8, 9, generator=seeded())),
        (ConfigError, "dt", lambda: PhasorNetwork(torch.eye(2), dt=0.0)),
        (ShapeError, "slot_phase", lambda: PhasorNetwork(torch.eye(2), slot_phase=torch.zeros(3))),
        (DataError, "no item", lambda: phase_coherence(torch.zeros(3), torch.zeros(1, 3, dtype=torch.bool))),
    ]
    for kind, match, call in calls:
        with pytest.raises(kind, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)
