"""Networks that speak in spikes: learning rules, interchange, conversion, accounting, reservoirs and their analyses."""

from __future__ import annotations

from neuropil.spiking.accounting import LayerCost as LayerCost
from neuropil.spiking.accounting import NetworkCost as NetworkCost
from neuropil.spiking.accounting import network_cost as network_cost
from neuropil.spiking.conversion import RateCoded as RateCoded
from neuropil.spiking.conversion import SpikingReLU as SpikingReLU
from neuropil.spiking.conversion import convert_to_spikes as convert_to_spikes
from neuropil.spiking.decolle import DECOLLE as DECOLLE
from neuropil.spiking.driven import DrivenCell as DrivenCell
from neuropil.spiking.force import FORCE as FORCE
from neuropil.spiking.interchange import from_nir as from_nir
from neuropil.spiking.interchange import to_nir as to_nir
from neuropil.spiking.local_rule import LocalRule as LocalRule
from neuropil.spiking.local_rule import Proposal as Proposal
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
