"""Benchmarks: what segmenting and training cost on this machine, in operations, seconds and memory."""
