"""Sessions: calibrate, compress, step, save, and give the model back."""
