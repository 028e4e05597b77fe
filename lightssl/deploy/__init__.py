"""To the device: ONNX files, device profiles, latency."""
