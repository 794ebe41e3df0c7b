"""Experiments of the paper from one command: the ablation of table 4, the costs of table 5."""
