"""What algorithms share that solve for quantized weights with the least output error; private."""
