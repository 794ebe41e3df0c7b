"""Settings of the networks, one model each, found by the network's name in `NETWORKS`. No torch here."""

from medsegdiff.config.networks import baselines, guided, medsegdiff_v2  # noqa: F401  (they register themselves)
from medsegdiff.config.networks.base import NETWORKS as NETWORKS
from medsegdiff.config.networks.base import Component as Component
from medsegdiff.config.networks.base import NetworkConfig as NetworkConfig
