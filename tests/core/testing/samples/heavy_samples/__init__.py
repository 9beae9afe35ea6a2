"""A face that imports torch, and with it everything that makes listing slow."""

import torch

SUM = torch.sum
