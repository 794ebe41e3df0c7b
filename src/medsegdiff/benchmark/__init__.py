"""Benchmarks: what segmenting and training cost on this machine, and Dice against the number of members."""
