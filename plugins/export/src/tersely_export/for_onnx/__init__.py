"""What the exporter ``onnx`` is made of: the graph, and its check in onnxruntime."""
