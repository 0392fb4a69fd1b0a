"""Networks that speak in spikes: interchange, conversion, accounting, reservoirs and their analyses."""

from neuropil.spiking.driven import DrivenCell as DrivenCell
from neuropil.spiking.interchange import from_nir as from_nir
from neuropil.spiking.interchange import to_nir as to_nir
