"""A run as graphs that other programs compute: ONNX, or torch.export."""
