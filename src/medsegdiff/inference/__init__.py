"""Segmenting images with a trained model: the ensemble, its fusion and its uncertainty."""
