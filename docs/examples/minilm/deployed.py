"""What the job of MiniLM in 8 bits refers to: batches, and a score that needs no labels."""

import functools

import torch
from model import Batch, Sentences, agreement, batches, load_teacher
from sentences import split

CALIBRATION, HELD_OUT, TOKENS = 512, 512, 128


def calibration() -> list[Batch]:
    """Return sentences of three quarters of the standard library's modules."""
    learned, _ = split(0)
    return batches(learned[:CALIBRATION], size=16)


@functools.cache
def held_out() -> list[Batch]:
    """Return sentences of the other modules."""
    _, held = split(0)
    return batches(held[:HELD_OUT], size=16)


def evaluate(model: Sentences) -> dict[str, float]:
    """Return the mean cosine with the embeddings of the published model, for held-out sentences."""
    return {"cosine": agreement(model, load_teacher(), held_out())}


def example() -> Batch:
    """Return 16 sentences of 128 tokens each, none of them padding."""
    words = torch.cat([batch["input_ids"].flatten() for batch in held_out()])
    words = words[words > 0][: 16 * TOKENS].reshape(16, TOKENS)
    return {"input_ids": words, "attention_mask": torch.ones_like(words)}
