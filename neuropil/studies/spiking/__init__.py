"""Studies of networks that speak in spikes."""
