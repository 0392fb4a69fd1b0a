"""Parts that every room shares: cells, surrogate gradients, synapses, readouts, losses, recording."""

from __future__ import annotations

from neuropil.nn.active import ActiveBlock
from neuropil.nn.adaptive import AdaptiveLIF, AdaptiveState
from neuropil.nn.axonal_delay import AxonalDelay, AxonalDelayState
from neuropil.nn.batch_first import BatchFirst
from neuropil.nn.cosine import CosineLinear
from neuropil.nn.dsr import DSR, DSRState
from neuropil.nn.elementwise import Heaviside, Scale
from neuropil.nn.feedback import FeedbackConv2d, FeedbackLinear, SignSymmetricConv2d, SignSymmetricLinear
from neuropil.nn.graph import Graph, GraphState
from neuropil.nn.growing import grow_outputs
from neuropil.nn.integrator import IntegratorState, LeakyIntegrator
from neuropil.nn.izhikevich import Izhikevich, IzhikevichState
from neuropil.nn.lif import IF, LIF, LIFState
from neuropil.nn.loss import (
    CountCrossEntropy,
    LatencyCrossEntropy,
    MembraneCrossEntropy,
    RateCrossEntropy,
    RateMSE,
    StepCrossEntropy,
    latency,
)
from neuropil.nn.readout import (
    CountReadout,
    LastMembrane,
    MaxMembrane,
    MeanMembrane,
    MembraneReadout,
    RateReadout,
    Readout,
    WeightedRateReadout,
)
from neuropil.nn.recording import Recording, record
from neuropil.nn.sequential import Sequential
from neuropil.nn.sharing import shared_copy
from neuropil.nn.sparse import SparseLinear
from neuropil.nn.stateful import Stateful
from neuropil.nn.surrogate import ArcTan, FastSigmoid, Sigmoid, StraightThrough, Surrogate, Triangle
from neuropil.nn.synapse import synaptic_conv2d, synaptic_linear
from neuropil.nn.synaptic import SynapticLIF, SynapticState
from neuropil.nn.synaptic_integrator import SynapticIntegrator
from neuropil.nn.traced import TracedConv2d, TracedLinear, TraceState

__all__ = [
    "DSR",
    "IF",
    "LIF",
    "ActiveBlock",
    "AdaptiveLIF",
    "AdaptiveState",
    "ArcTan",
    "AxonalDelay",
    "AxonalDelayState",
    "BatchFirst",
    "CosineLinear",
    "CountCrossEntropy",
    "CountReadout",
    "DSRState",
    "FastSigmoid",
    "FeedbackConv2d",
    "FeedbackLinear",
    "Graph",
    "GraphState",
    "Heaviside",
    "IntegratorState",
    "Izhikevich",
    "IzhikevichState",
    "LIFState",
    "LastMembrane",
    "LatencyCrossEntropy",
    "LeakyIntegrator",
    "MaxMembrane",
    "MeanMembrane",
    "MembraneCrossEntropy",
    "MembraneReadout",
    "RateCrossEntropy",
    "RateMSE",
    "RateReadout",
    "Readout",
    "Recording",
    "Scale",
    "Sequential",
    "Sigmoid",
    "SignSymmetricConv2d",
    "SignSymmetricLinear",
    "SparseLinear",
    "Stateful",
    "StepCrossEntropy",
    "StraightThrough",
    "Surrogate",
    "SynapticIntegrator",
    "SynapticLIF",
    "SynapticState",
    "TraceState",
    "TracedConv2d",
    "TracedLinear",
    "Triangle",
    "WeightedRateReadout",
    "grow_outputs",
    "latency",
    "record",
    "shared_copy",
    "synaptic_conv2d",
    "synaptic_linear",
]
