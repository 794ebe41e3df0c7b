"""Benchmarks: what segmenting and training cost on this machine."""
