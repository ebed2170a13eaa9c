"""Sweeps over the machines of a controller: what runner/ does on this host, by way of client/."""
