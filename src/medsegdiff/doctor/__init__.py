"""Explaining a run to somebody whose masks look wrong: one file per group of findings, `examine` has them all."""
