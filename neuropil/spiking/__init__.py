"""Networks that speak in spikes: interchange, conversion, accounting, reservoirs and their analyses."""

from neuropil.spiking.accounting import LayerCost as LayerCost
from neuropil.spiking.accounting import NetworkCost as NetworkCost
from neuropil.spiking.accounting import network_cost as network_cost
from neuropil.spiking.conversion import RateCoded as RateCoded
from neuropil.spiking.conversion import SpikingReLU as SpikingReLU
from neuropil.spiking.conversion import convert_to_spikes as convert_to_spikes
from neuropil.spiking.driven import DrivenCell as DrivenCell
from neuropil.spiking.interchange import from_nir as from_nir
from neuropil.spiking.interchange import to_nir as to_nir
