"""Ranks of a tuned model's tokens under the base."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sftlab.exercises.ex02_superficial_alignment.rank_shift import (
    forced_logits,
    shift_class,
    token_rank_shift,
)


@given(st.integers(1, 6), st.integers(2, 9), st.integers(0, 99))
def test_ranks_are_scipy_s(length, vocabulary, seed):
    randomness = torch.Generator().manual_seed(seed)
    logits = torch.randint(4, (length, vocabulary), generator=randomness).float()  # with ties
    tokens = torch.randint(vocabulary, (length,), generator=randomness)
    ranks = stats.rankdata(-logits.numpy(), method="min", axis=-1)
    expected = [int(row[token]) for row, token in zip(ranks, tokens, strict=True)]
    assert token_rank_shift(logits, tokens).tolist() == expected


def test_the_likeliest_token_has_rank_one():
    logits = torch.randn(5, 7)
    assert token_rank_shift(logits, logits.argmax(-1)).tolist() == [1] * 5
    assert token_rank_shift(logits, logits.argmin(-1)).tolist() == [7] * 5


def test_classes_are_those_of_the_paper():
    assert [shift_class(rank) for rank in (1, 2, 3, 4, 4000)] == [
        "unshifted", "marginal", "marginal", "shifted", "shifted",
    ]  # fmt: skip


def test_each_row_forecasts_its_token_from_all_before_it(tiny_model):
    prompt, reply = [5, 6, 7], [8, 9, 10, 11]
    found = forced_logits(tiny_model, prompt, reply)
    assert found.shape == (4, tiny_model.config.vocab_size)
    for place in range(4):
        alone = tiny_model(torch.tensor([[*prompt, *reply[:place]]])).logits[0, -1]
        assert torch.allclose(found[place], alone, atol=1e-5)


def test_a_model_s_own_greedy_tokens_are_all_unshifted(tiny_model):
    ids = [5, 6, 7]
    for _ in range(6):
        ids.append(tiny_model(torch.tensor([ids])).logits[0, -1].argmax().item())
    logits = forced_logits(tiny_model, ids[:3], ids[3:])
    assert token_rank_shift(logits, torch.tensor(ids[3:])).tolist() == [1] * 6
