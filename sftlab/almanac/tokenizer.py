"""The almanac's tokenizer: byte-level BPE with four special tokens and a ChatML template."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sftlab.almanac.documents import documents
from sftlab.chat import CHATML

SEPARATOR = "<|endoftext|>"  # between documents
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
PAD = "<|pad|>"  # separate from the end-of-turn token, which would otherwise be masked as padding
VOCABULARY = 4096


def train_tokenizer(document_count: int = 30_000, seed: int = 0) -> PreTrainedTokenizerFast:
    """Train the tokenizer on newly generated documents (about half a minute)."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[SEPARATOR, TURN_START, TURN_END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = islice(documents(f"tokenizer:{seed}"), document_count)
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=SEPARATOR,
        eos_token=TURN_END,
        pad_token=PAD,
        chat_template=CHATML,
        padding_side="left",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
