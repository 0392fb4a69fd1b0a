"""Networks that speak in spikes: learning rules, interchange, conversion, accounting, reservoirs and their analyses."""

from __future__ import annotations

from neuropil.spiking.accounting import LayerCost as LayerCost
from neuropil.spiking.accounting import NetworkCost as NetworkCost
from neuropil.spiking.accounting import network_cost as network_cost
from neuropil.spiking.avalanches import Avalanches as Avalanches
from neuropil.spiking.avalanches import avalanche_statistics as avalanche_statistics
from neuropil.spiking.branching import BranchingRatio as BranchingRatio
from neuropil.spiking.branching import branching_ratio as branching_ratio
from neuropil.spiking.complexity import LempelZiv as LempelZiv
from neuropil.spiking.complexity import lempel_ziv_complexity as lempel_ziv_complexity
from neuropil.spiking.conversion import RateCoded as RateCoded
from neuropil.spiking.conversion import SpikingReLU as SpikingReLU
from neuropil.spiking.conversion import convert_to_spikes as convert_to_spikes
from neuropil.spiking.decolle import DECOLLE as DECOLLE
from neuropil.spiking.driven import DrivenCell as DrivenCell
from neuropil.spiking.echo_state import EchoState as EchoState
from neuropil.spiking.echo_state import EchoStateClassifier as EchoStateClassifier
from neuropil.spiking.eprop import EProp as EProp
from neuropil.spiking.eprop import EPropRecurrent as EPropRecurrent
from neuropil.spiking.eprop import eligibility_traces as eligibility_traces
from neuropil.spiking.force import FORCE as FORCE
from neuropil.spiking.interchange import from_nir as from_nir
from neuropil.spiking.interchange import to_nir as to_nir
from neuropil.spiking.liquid_state import LiquidState as LiquidState
from neuropil.spiking.liquid_state import LiquidStateClassifier as LiquidStateClassifier
from neuropil.spiking.local_rule import LocalRule as LocalRule
from neuropil.spiking.local_rule import Proposal as Proposal
from neuropil.spiking.power_law import PowerLaw as PowerLaw
from neuropil.spiking.power_law import fit_power_law as fit_power_law
from neuropil.spiking.reservoir_measures import LyapunovExponents as LyapunovExponents
from neuropil.spiking.reservoir_measures import MemoryCapacity as MemoryCapacity
from neuropil.spiking.reservoir_measures import Spectrum as Spectrum
from neuropil.spiking.reservoir_measures import lyapunov_exponents as lyapunov_exponents
from neuropil.spiking.reservoir_measures import memory_capacity as memory_capacity
from neuropil.spiking.reservoir_measures import spectral_radius as spectral_radius
from neuropil.spiking.ridge import RidgeReadout as RidgeReadout
from neuropil.spiking.ridge import RLSReadout as RLSReadout
from neuropil.spiking.ridge import rls_step as rls_step
from neuropil.spiking.stdp import STDP as STDP
from neuropil.spiking.stdp import RewardModulatedSTDP as RewardModulatedSTDP
from neuropil.spiking.tempotron import Tempotron as Tempotron
from neuropil.spiking.tempotron import TempotronLoss as TempotronLoss
from neuropil.spiking.three_factor import ThreeFactor as ThreeFactor
from neuropil.spiking.three_factor import three_factor_change as three_factor_change
from neuropil.spiking.truncated_bptt import TruncatedBPTT as TruncatedBPTT
