"""The handwritten digits of scikit-learn: 1,797 images of 8 x 8, of which 450 are for testing."""

import functools

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset


@functools.cache
def split() -> tuple[TensorDataset, TensorDataset]:
    """Return the training and the test set; the split is always the same."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    train, test = train_test_split(
        range(len(labels)), test_size=450, stratify=digits.target, random_state=0
    )
    return (
        TensorDataset(images[train], labels[train]),
        TensorDataset(images[test], labels[test]),
    )


def training_batches(seed: int) -> DataLoader[tuple[Tensor, ...]]:
    """Return the training set in batches of 64, shuffled by a seed."""
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(split()[0], batch_size=64, shuffle=True, generator=generator)


def train() -> DataLoader[tuple[Tensor, ...]]:
    """Return the training set for one epoch of the built-in loop, shuffled by torch's generator."""
    return DataLoader(split()[0], batch_size=64, shuffle=True)


def few(count: int, *, seed: int) -> TensorDataset:
    """Return some images of the training set, of each digit its share, chosen by a seed."""
    images, labels = split()[0].tensors
    chosen, _ = train_test_split(
        range(len(labels)), train_size=count, stratify=labels.numpy(), random_state=seed
    )
    return TensorDataset(images[chosen], labels[chosen])


def endless(dataset: TensorDataset, *, steps: int, seed: int) -> DataLoader[tuple[Tensor, ...]]:
    """Return a number of batches of 64, shuffled by a seed, whatever the size of the dataset."""
    generator = torch.Generator().manual_seed(seed)
    order = RandomSampler(dataset, num_samples=64 * steps, generator=generator)
    return DataLoader(dataset, batch_size=64, sampler=order)


def calibration() -> list[Tensor]:
    """Return a few batches of images without labels, for algorithms that observe activations."""
    images = split()[0].tensors[0]
    return list(images[:256].split(64))


@torch.no_grad()
def evaluate(model: nn.Module) -> dict[str, float]:
    """Return the share of test images that are read rightly, and the mean loss."""
    model.eval()
    images, labels = split()[1].tensors
    logits = model(images)
    return {
        "accuracy": (logits.argmax(1) == labels).float().mean().item(),
        "loss": nn.functional.cross_entropy(logits, labels).item(),
    }
