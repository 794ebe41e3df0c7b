"""Settings of the networks, one model each, found by the network's name in `NETWORKS`. No torch here."""

from medsegdiff.config.base import NETWORKS as NETWORKS
from medsegdiff.config.base import NetworkConfig as NetworkConfig
from medsegdiff.config.base import PretrainedConfig as PretrainedConfig
from medsegdiff.config.base import settings_of as settings_of
from medsegdiff.config.networks import (  # noqa: F401  (they register themselves)
    bat,
    beal,
    fatnet,
    guided,
    mtseg,
    nnunet,
    resunet,
    swinbts,
    transbts,
    transunet,
    ultraunet,
    unetr,
    v2,
)
from medsegdiff.config.networks.v2 import V2Config as V2Config
