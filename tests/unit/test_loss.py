"""The SFT loss by hand, its shift, its normalisation, and where it is undefined."""

from __future__ import annotations

import math

import pytest
import torch

from sftlab.loss import (
    IGNORE_INDEX,
    accumulated_loss,
    mean_of_means,
    model_loss,
    perplexity,
    response_loss_share,
    sft_loss,
    token_nll,
    trained_tokens,
)

# Position 0 forecasts token 1 with probability 1/4, position 1 forecasts token 2 with 1/8.
CHANCES = torch.tensor([[[0.5, 0.25, 0.25], [0.5, 0.375, 0.125], [0.2, 0.3, 0.5]]])
LABELS = torch.tensor([[0, 1, 2]])


def test_the_loss_is_the_mean_surprise_of_the_next_tokens():
    assert token_nll(CHANCES.log(), LABELS)[0].tolist() == pytest.approx([math.log(4), math.log(8)])
    assert sft_loss(CHANCES.log(), LABELS).item() == pytest.approx(math.log(32) / 2)


def test_perplexity_is_the_number_of_equally_likely_choices():
    assert perplexity(math.log(7)) == pytest.approx(7)


def test_an_ignored_label_adds_nothing_to_sum_or_count():
    labels = torch.tensor([[0, IGNORE_INDEX, 2]])
    assert token_nll(CHANCES.log(), labels)[0].tolist() == pytest.approx([0.0, math.log(8)])
    assert trained_tokens(labels) == 1
    assert sft_loss(CHANCES.log(), labels).item() == pytest.approx(math.log(8))


def test_the_first_token_of_a_row_is_never_scored():
    assert trained_tokens(LABELS) == 2
    moved = LABELS.clone()
    moved[0, 0] = 2
    assert sft_loss(CHANCES.log(), moved) == sft_loss(CHANCES.log(), LABELS)


def test_token_zero_counts_as_a_trained_token():
    assert trained_tokens(torch.tensor([[1, 0, 0, IGNORE_INDEX]])) == 2


def test_with_nothing_to_train_the_loss_is_undefined_not_perfect():
    nothing = torch.full((1, 3), IGNORE_INDEX)
    assert sft_loss(CHANCES.log(), nothing).isnan()
    assert accumulated_loss([(CHANCES.log(), nothing)]).isnan()
    assert accumulated_loss([]).isnan()


def test_the_gradient_at_masked_positions_is_exactly_zero():
    logits = torch.randn(2, 5, 7, requires_grad=True)
    labels = torch.randint(7, (2, 5))
    labels[:, :3] = IGNORE_INDEX
    sft_loss(logits, labels).backward()
    assert (logits.grad[:, :2] == 0).all()  # they forecast the masked tokens 1 and 2
    assert (logits.grad[:, 4] == 0).all()  # the last position forecasts nothing
    assert (logits.grad[:, 2:4] != 0).any(-1).all()


def test_large_logits_neither_overflow_nor_lose_the_loss():
    logits = torch.tensor([[[1e4, -1e4], [0.0, 0.0]]])
    assert sft_loss(logits, torch.tensor([[0, 1]])).item() == pytest.approx(2e4)


def test_half_precision_logits_are_scored_in_float32():
    logits = torch.randn(1, 6, 50).bfloat16()
    labels = torch.randint(50, (1, 6))
    assert token_nll(logits, labels).dtype == torch.float32
    torch.testing.assert_close(token_nll(logits, labels), token_nll(logits.float(), labels))
    assert token_nll(logits.double(), labels).dtype == torch.float64


def test_logits_and_labels_of_different_lengths_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(1, 3, 3\) and labels \(1, 2\)"):
        token_nll(CHANCES, LABELS[:, :2])


def two_micro_batches():
    """One trained token of surprise log 4, and two of surprise log 8 each."""
    short = (torch.tensor([[[0.25, 0.75], [0.5, 0.5]]]).log(), torch.tensor([[0, 0]]))
    long = (torch.tensor([[[0.125, 0.875]] * 3]).log(), torch.tensor([[0, 0, 0]]))
    return [short, long]


def test_accumulation_weighs_every_token_alike_and_the_mean_of_means_does_not():
    whole = (math.log(4) + 2 * math.log(8)) / 3
    assert accumulated_loss(two_micro_batches()).item() == pytest.approx(whole)
    assert mean_of_means(two_micro_batches()).item() == pytest.approx(
        (math.log(4) + math.log(8)) / 2
    )


def test_both_means_agree_when_every_micro_batch_has_as_many_tokens():
    parts = [two_micro_batches()[1]] * 3
    torch.testing.assert_close(accumulated_loss(parts), mean_of_means(parts))


def test_response_share_is_the_part_of_the_full_loss_that_falls_on_the_response():
    losses = torch.tensor([[1.0, 2.0, 5.0], [1.0, 1.0, 0.0]])
    labels = torch.tensor(
        [[IGNORE_INDEX, IGNORE_INDEX, 3, 3], [IGNORE_INDEX, IGNORE_INDEX, 3, IGNORE_INDEX]]
    )
    assert response_loss_share(losses, labels) == pytest.approx((2 + 5 + 1) / 10)


class TestModelLoss:
    """The same number as from all logits, with only the scored positions projected."""

    batch = {  # noqa: RUF012
        "input_ids": torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 3, 3]]),
        "labels": torch.tensor(
            [
                [IGNORE_INDEX, IGNORE_INDEX, 7, 8, 9],
                [IGNORE_INDEX, 6, 7, IGNORE_INDEX, IGNORE_INDEX],
            ]
        ),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    }

    def test_projects_only_the_positions_that_are_scored(self, tiny_model, monkeypatch):
        projected = []
        of_logits = torch.nn.functional.cross_entropy

        def seen(logits, *others, **options):
            projected.append(logits.shape)
            return of_logits(logits, *others, **options)

        monkeypatch.setattr(torch.nn.functional, "cross_entropy", seen)
        _, count = model_loss(tiny_model, self.batch)
        assert count == 5
        assert projected == [(5, tiny_model.config.vocab_size)]

    def test_a_tied_embedding_gets_two_gradients_and_no_third_matrix_for_their_sum(
        self, tiny_model
    ):
        batch = self.batch
        scored = batch["labels"][:, 1:] != IGNORE_INDEX
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        logits = tiny_model(**inputs).logits[:, :-1][scored]
        plain = torch.nn.functional.cross_entropy(
            logits, batch["labels"][:, 1:][scored], reduction="sum"
        )
        size = 4 * tiny_model.lm_head.weight.numel()
        made, gradients = [], []
        for loss in (plain, model_loss(tiny_model, batch)[0]):
            tiny_model.zero_grad()
            with torch.profiler.profile(profile_memory=True) as seen:
                loss.backward()
            events = seen.profiler.kineto_results.events()
            made.append(sum(event.nbytes() == size for event in events))
            gradients.append(tiny_model.lm_head.weight.grad.clone())
        assert made == [3, 2]
        torch.testing.assert_close(*gradients)

    def test_what_stands_at_padded_places_does_not_matter(self, tiny_model):
        before, _ = model_loss(tiny_model, self.batch)
        other = {**self.batch, "input_ids": self.batch["input_ids"].clone()}
        other["input_ids"][1, 3:] = 1234
        assert model_loss(tiny_model, other)[0] == before

    def test_a_model_that_changes_its_logits_after_the_head_is_scored_on_those(self, tiny_model):
        tiny_model.config.final_logit_softcapping = 0.1
        plain = tiny_model.forward

        def capped(*args, **options):
            found = plain(*args, **options)
            found.logits = 0.1 * (found.logits / 0.1).tanh()
            return found

        tiny_model.forward = capped
        inputs = {k: v for k, v in self.batch.items() if k != "labels"}
        expected = token_nll(tiny_model(**inputs).logits, self.batch["labels"]).sum()
        torch.testing.assert_close(model_loss(tiny_model, self.batch)[0], expected)
