"""Every pair of mechanisms on one network: both keep what they promise, or the pair is refused in one line."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from neuropil import continual, editing, spiking, training
from neuropil import nn as parts
from neuropil.nn import Cell
from neuropil.nn.lif import LIF
from neuropil.training import Learner, Plugin
from tests.together import draw
from tests.together.world import ENTRIES, Act, Entry, World, bare, live, lives, verdict_of_pair

warnings.simplefilter("ignore")
ROOMS = (continual, editing, parts, spiking, training)

# Exported, but no mechanism of its own to be put on a network that learns by gradients, and why.
APART = {
    "Backprop": "what every network here learns by unless another learner is tested",
    "Learner": "the contract", "Plugin": "the contract", "LocalRule": "a base", "QuadraticPenalty": "a base",
    "Cell": "a base", "SpikingCell": "a base",
    "STDP": "teaches one layer without gradients, so that there is nothing for a second mechanism to act on",
    "RewardModulatedSTDP": "teaches one layer without gradients",
    "DecoupledUpdate": "learns from sequences with targets at every step",
    "NeuroModulator": "part of NHL", "DSR": "brings a loop, readout and gradient of its own",
    "HyperNetwork": "a base of those that write weights",
    "ChunkedHyperNetwork": "takes part as its recurrent kind does",
    "SourceFreeAdapter": "a base", "unwrapped": "looks into wrappers",
    "AlphaSynapse": "takes part as ExponentialSynapse does",
    "DoubleExponentialSynapse": "takes part as ExponentialSynapse does",
    "initialised": "the first step of retraining",
    **dict.fromkeys(("damp_hidden", "replace_head", "shift_mean_difference"), "edits the head of a language model"),
    **dict.fromkeys(
        ("neuron_adjust", "prune_neurons", "abstain"),
        "edits the feed-forward layers of a language model",
    ),
    "shared_copy": "what edits begin with: nothing is edited",
}  # fmt: skip


with_record = pytest.mark.skipif(not draw.RECORD.exists(), reason="no record yet: run make composition")


def exported(room: ModuleType) -> Iterator[tuple[str, object]]:
    for name in sorted(vars(room)):
        found = getattr(room, name)
        if not name.startswith("_") and getattr(found, "__module__", "").startswith("neuropil."):
            yield name, found


def is_mechanism(found: object) -> bool:
    """Whether it is of a kind that acts on a network that learns: by its class, or as an edit by its signature."""
    if inspect.isclass(found):
        return issubclass(found, Plugin | Optimizer | Learner | Cell | LIF) or (
            issubclass(found, nn.Module) and hasattr(found, "right_inverse")
        )
    if not inspect.isfunction(found):
        return False
    signature = inspect.signature(found)
    first = next(iter(signature.parameters), "")
    return first in ("model", "net", "network") and str(signature.return_annotation) in ("nn.Module", "Model")


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_every_exported_mechanism_takes_part(room: ModuleType) -> None:
    known = {id(each) for entry in ENTRIES.values() for each in entry.mechanisms}
    missing = [
        name
        for name, found in exported(room)
        if is_mechanism(found) and id(found) not in known and name not in APART
    ]
    assert not missing, f"{missing}: add an entry to tests/together, or say in APART why there is none"


@pytest.mark.parametrize("name", ENTRIES)
def test_alone_it_keeps_its_promise(name: str) -> None:
    live(ENTRIES[name], without=[bare()])


def vandal(world: World) -> Act:
    """Shakes every weight after every step, from the second task on, and everything once more before the end."""
    generator = torch.Generator().manual_seed(3)

    def shake() -> None:
        if world.index:
            with torch.no_grad():
                for parameter in world.model.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)

    world.on_step.append(shake)
    yield


# Promises on weights, which weights that are shaken must break; the others speak of batches, memories and structure.
ON_WEIGHTS = ("hlop", "gpm", "owm", "ewc", "mas", "parameter_l2", "hypernetwork", "mean_field", "classp")
WATCHERS = ("forgetting_tracker", "online_accuracy", "watch_activity")


@pytest.mark.parametrize("name", (*ON_WEIGHTS, *WATCHERS))
def test_a_promise_can_be_broken(name: str) -> None:
    with pytest.raises(AssertionError):
        live(ENTRIES[name], Entry("vandal", "plugin", (), vandal, None), without=[bare(), bare()])


@with_record
def test_the_record_is_of_these_mechanisms() -> None:
    assert list(draw.recorded()) == [f"{a.name} + {b.name}" for a, b in draw.pairs()], "run make composition"


@with_record
def test_nearly_all_pairs_that_are_not_refused_keep_both_promises() -> None:
    assert draw.share_kept() >= 0.95


@with_record
def test_the_page_is_of_the_record() -> None:
    assert draw.PAGE.read_text() == draw.page(), "run make composition"
    picture = draw.PICTURE.read_text()
    assert all(name.replace("_", " ") in picture for name in ENTRIES)


@with_record
@pytest.mark.parametrize("name", ENTRIES)
def test_pairs_fare_as_recorded(name: str) -> None:
    """One promise in a hundred may tip on another machine, whose sums are rounded otherwise; a refusal may not."""
    alone, record = lives(), draw.recorded()
    pairs = [(a, b) for a, b in draw.pairs() if a.name == name]
    tipped = []
    for a, b in pairs:
        now, (was, *_) = verdict_of_pair(a, b, alone), record[f"{a.name} + {b.name}"]
        if now.kind != was:
            assert {now.kind, was} == {"together", "broken"}, f"{a.name} + {b.name}: {now.kind}, {now.line}"
            tipped.append(f"{a.name} + {b.name}: {now.kind}, {now.line}")
    assert len(tipped) <= 1 + len(pairs) // 100, tipped
