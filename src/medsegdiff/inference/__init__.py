"""Segmenting images with a trained model: the ensemble, its fusion and its uncertainty."""

RECORD = "segment.json"
"""Marks a folder of results; named here, where it can be looked for without torch."""
