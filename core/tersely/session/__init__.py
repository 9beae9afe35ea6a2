"""Sessions: calibrate, compress, step, save, and give the model back.

Private: import public names from `tersely`.
"""
