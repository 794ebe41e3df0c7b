"""Folders of models, which `medsegdiff --model NAME` finds; no code."""
