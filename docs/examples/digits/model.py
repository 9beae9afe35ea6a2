"""A small convolutional network; it is trained once and then read from a file beside this one."""

import hashlib
import os
from pathlib import Path

import torch
from data import training_batches
from torch import Tensor, nn

HERE = Path(__file__).parent


class Digits(nn.Module):
    """Three convolutions, each with its batch norm, and a linear classifier.

    Args:
        width: filters of the first convolution; the others have twice and four times as many.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(2 * width)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        self.norm3 = nn.BatchNorm2d(4 * width)
        self.pool = nn.MaxPool2d(2)
        self.classifier = nn.Linear(4 * width * 2 * 2, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (batch, 10), for images of shape (batch, 1, 8, 8)."""
        hidden = self.norm1(self.conv1(images)).relu()
        hidden = self.pool(self.norm2(self.conv2(hidden)).relu())
        hidden = self.pool(self.norm3(self.conv3(hidden)).relu())
        return self.classifier(hidden.flatten(1))


def build() -> nn.Module:
    """Return the trained dense network."""
    # The name holds a digest of the code, so that edited code is trained anew.
    code = b"".join((HERE / name).read_bytes() for name in ("model.py", "data.py"))
    checkpoint = HERE / ".cache" / f"dense-{hashlib.sha256(code).hexdigest()[:12]}.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Digits()
        if checkpoint.exists():
            model.load_state_dict(torch.load(checkpoint, weights_only=True))
        else:
            print("training the dense network once; this takes less than a minute")
            fit(model, epochs=12)
            save(model, checkpoint)
    return model


def fit(model: nn.Module, *, epochs: int) -> None:
    """Train a model from the start."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    model.train()
    for epoch in range(epochs):
        for images, labels in training_batches(seed=epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()


def save(model: nn.Module, path: Path) -> None:
    """Write the weights; an interrupted run leaves no half file behind."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    torch.save(model.state_dict(), partial)
    partial.replace(path)
