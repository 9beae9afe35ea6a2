"""What the exporter ``executorch`` is made of: the program, and its check in the runtime."""
