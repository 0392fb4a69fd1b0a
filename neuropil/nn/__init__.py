"""Parts that every room shares: cells, surrogate gradients, synapses, readouts, losses, recording."""

from __future__ import annotations

from neuropil.nn.active import ActiveBlock
from neuropil.nn.active_dendrite import ActiveDendrite, ActiveDendriteState
from neuropil.nn.adaptive import AdaptiveLIF, AdaptiveState
from neuropil.nn.adex import AdEx, AdExState
from neuropil.nn.axonal_delay import AxonalDelay, AxonalDelayState
from neuropil.nn.batch_first import BatchFirst
from neuropil.nn.cell import Cell, SpikingCell
from neuropil.nn.conductance import ConductanceLIF, ConductanceState
from neuropil.nn.content_memory import ContentAddressableMemory, ContentMemoryState
from neuropil.nn.cosine import CosineLinear
from neuropil.nn.dale import Dale
from neuropil.nn.decoder import CausalAttention, Decoder, DecoderBlock, FeedForward, generate, rotate
from neuropil.nn.delay import DelayLinear, DelayState
from neuropil.nn.dsr import DSR, DSRState
from neuropil.nn.elementwise import Heaviside, Scale
from neuropil.nn.feedback import (
    FeedbackConv2d,
    FeedbackLinear,
    MirroredFeedbackLinear,
    SignSymmetricConv2d,
    SignSymmetricLinear,
)
from neuropil.nn.graph import Graph, GraphState
from neuropil.nn.growing import grow_outputs
from neuropil.nn.hmc import HMCSamples, hmc_sample
from neuropil.nn.hodgkin_huxley import HodgkinHuxley, HodgkinHuxleyState
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
from neuropil.nn.pictures import (
    delay_map,
    membrane_traces,
    phase_portrait,
    raster,
    rate_histogram,
    weight_map,
)
from neuropil.nn.population import Population, gamma_spread
from neuropil.nn.postsynaptic import (
    AlphaState,
    AlphaSynapse,
    DoubleExponentialState,
    DoubleExponentialSynapse,
    ExponentialState,
    ExponentialSynapse,
)
from neuropil.nn.prototypes import ClassSums, NearestPrototype, class_sums, prototype_logits
from neuropil.nn.quadratic import QIF, QIFState
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
from neuropil.nn.recurrent import Recurrent, RecurrentState
from neuropil.nn.refractory import Refractory, RefractoryState
from neuropil.nn.resonator import ResonateAndFire, ResonateAndFireState
from neuropil.nn.sequential import Sequential
from neuropil.nn.sharing import shared_copy
from neuropil.nn.sites import Site, activation_sites, attach, override_sites, read_sites
from neuropil.nn.soft_hebb import soft_hebb_step, soft_hebbian_change
from neuropil.nn.sparse import SparseLinear
from neuropil.nn.stateful import Stateful
from neuropil.nn.surrogate import ArcTan, FastSigmoid, Sigmoid, StraightThrough, Surrogate, Triangle
from neuropil.nn.synapse import synaptic_conv2d, synaptic_linear
from neuropil.nn.synaptic import SynapticLIF, SynapticState
from neuropil.nn.synaptic_integrator import SynapticIntegrator
from neuropil.nn.traced import TracedConv2d, TracedLinear, TraceState
from neuropil.nn.two_compartment import TwoCompartment, TwoCompartmentState

__all__ = [
    "DSR",
    "IF",
    "LIF",
    "QIF",
    "ActiveBlock",
    "ActiveDendrite",
    "ActiveDendriteState",
    "AdEx",
    "AdExState",
    "AdaptiveLIF",
    "AdaptiveState",
    "AlphaState",
    "AlphaSynapse",
    "ArcTan",
    "AxonalDelay",
    "AxonalDelayState",
    "BatchFirst",
    "CausalAttention",
    "Cell",
    "ClassSums",
    "ConductanceLIF",
    "ConductanceState",
    "ContentAddressableMemory",
    "ContentMemoryState",
    "CosineLinear",
    "CountCrossEntropy",
    "CountReadout",
    "DSRState",
    "Dale",
    "Decoder",
    "DecoderBlock",
    "DelayLinear",
    "DelayState",
    "DoubleExponentialState",
    "DoubleExponentialSynapse",
    "ExponentialState",
    "ExponentialSynapse",
    "FastSigmoid",
    "FeedForward",
    "FeedbackConv2d",
    "FeedbackLinear",
    "Graph",
    "GraphState",
    "HMCSamples",
    "Heaviside",
    "HodgkinHuxley",
    "HodgkinHuxleyState",
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
    "MirroredFeedbackLinear",
    "NearestPrototype",
    "Population",
    "QIFState",
    "RateCrossEntropy",
    "RateMSE",
    "RateReadout",
    "Readout",
    "Recording",
    "Recurrent",
    "RecurrentState",
    "Refractory",
    "RefractoryState",
    "ResonateAndFire",
    "ResonateAndFireState",
    "Scale",
    "Sequential",
    "Sigmoid",
    "SignSymmetricConv2d",
    "SignSymmetricLinear",
    "Site",
    "SparseLinear",
    "SpikingCell",
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
    "TwoCompartment",
    "TwoCompartmentState",
    "WeightedRateReadout",
    "activation_sites",
    "attach",
    "class_sums",
    "delay_map",
    "gamma_spread",
    "generate",
    "grow_outputs",
    "hmc_sample",
    "latency",
    "membrane_traces",
    "override_sites",
    "phase_portrait",
    "prototype_logits",
    "raster",
    "rate_histogram",
    "read_sites",
    "record",
    "rotate",
    "shared_copy",
    "soft_hebb_step",
    "soft_hebbian_change",
    "synaptic_conv2d",
    "synaptic_linear",
    "weight_map",
]
