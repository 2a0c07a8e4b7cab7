"""Where a tuned model's tokens come from: the rank of each in the base's prediction.

The measure is that of *The Unlocking Spell on Base LLMs* (Lin et al., 2023, arXiv:2312.01552).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

CLASSES = ("unshifted", "marginal", "shifted")


def token_rank_shift(base_logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The rank of each token under the base: 1 if no other token is more probable.

    Args:
        base_logits: (length, vocabulary); row t is the base's prediction *of* ``tokens[t]``, after
            reading everything before it.
        tokens: (length,) ids that the tuned model chose.

    Returns:
        (length,) integers from 1; equally probable tokens share the better rank.
    """
    chosen = base_logits.gather(-1, tokens.unsqueeze(-1))
    return (base_logits > chosen).sum(-1) + 1


def shift_class(rank: int) -> str:
    """Unshifted: the base's own first choice. Marginal: its second or third. Shifted: beyond."""
    return CLASSES[0] if rank == 1 else CLASSES[1] if rank <= 3 else CLASSES[2]


@torch.no_grad()
def forced_logits(model, prompt: Sequence[int], reply: Sequence[int]) -> torch.Tensor:
    """Teacher forcing: the model's prediction of each token of a reply, whatever it would write itself.

    Returns:
        (len(reply), vocabulary): row t predicts ``reply[t]`` from the prompt and ``reply[:t]``.
    """
    ids = torch.tensor([[*prompt, *reply]], device=model.device)
    # The logits at a position predict the token after it, so they begin at the prompt's last one.
    return model(ids).logits[0, len(prompt) - 1 : -1].float()
