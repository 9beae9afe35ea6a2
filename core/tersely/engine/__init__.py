"""What pruning, quantization and distillation share in a session.

Private: import public names from `tersely`.
"""
