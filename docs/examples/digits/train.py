"""Fine-tuning after pruning: a plain PyTorch loop with one line of tersely in it."""

import torch
from data import training_batches
from torch import nn

import tersely

EPOCHS = 10


def finetune(model: nn.Module, session: tersely.Session) -> None:
    """Train the pruned model; ``session.step()`` comes after ``optimizer.step()``."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(EPOCHS):
        model.train()
        total = 0.0
        batches = training_batches(seed=100 + epoch)
        for images, labels in batches:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            session.total_loss(loss).backward()
            optimizer.step()
            session.step()
            total += loss.item()
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {total / len(batches):.4f}")
