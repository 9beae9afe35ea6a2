"""What quantizers share that learn scales, zero points or roundings by gradients; private."""
