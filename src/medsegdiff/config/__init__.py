"""What the user asks: one frozen model per component, presets as YAML. What the data tell stands beside it."""

from medsegdiff.config.load import load_preset as load_preset
from medsegdiff.config.run import Config as Config
