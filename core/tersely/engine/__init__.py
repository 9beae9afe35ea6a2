"""What pruning, quantization and distillation share in a session."""
