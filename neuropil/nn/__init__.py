"""Parts that every room shares: cells, surrogate gradients, synapses, readouts, losses, recording."""

from __future__ import annotations

from neuropil.nn.lif import IF, LIF, LIFState
from neuropil.nn.readout import CountReadout, RateReadout, Readout, WeightedRateReadout
from neuropil.nn.sequential import Sequential
from neuropil.nn.stateful import Stateful
from neuropil.nn.surrogate import ArcTan, FastSigmoid, Sigmoid, StraightThrough, Surrogate, Triangle

__all__ = [
    "IF",
    "LIF",
    "ArcTan",
    "CountReadout",
    "FastSigmoid",
    "LIFState",
    "RateReadout",
    "Readout",
    "Sequential",
    "Sigmoid",
    "Stateful",
    "StraightThrough",
    "Surrogate",
    "Triangle",
    "WeightedRateReadout",
]
