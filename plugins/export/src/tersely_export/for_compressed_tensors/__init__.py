"""What the exporter ``compressed_tensors`` is made of: schemes, and its check in transformers."""
