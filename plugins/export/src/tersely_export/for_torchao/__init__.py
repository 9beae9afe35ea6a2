"""What the exporter ``torchao`` is made of: tensors, schemes, and its check in torchao."""
