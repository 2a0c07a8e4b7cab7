"""Decoding: stopping, padding, sampling, and what it leaves untouched."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sftlab.chat import encode, user
from sftlab.errors import WorkbookError
from sftlab.generate import (
    Generation,
    answer,
    generate,
    next_token_distribution,
    stop_tokens,
    top_tokens,
)

PROMPTS = ["What is the capital of France?", "Hi", "List three tips for a job interview:", "A"]


class Scripted(torch.nn.Module):
    """A model that writes a fixed text after any prompt, however long the prompt is."""

    def __init__(self, model, written):
        super().__init__()
        self.inner, self.written, self.calls = model, written, 0
        self.config, self.device = model.config, model.device

    def forward(self, input_ids, **options):
        found = self.inner(input_ids=input_ids, **options)
        found.logits[:] = 0
        found.logits[..., self.written[min(self.calls, len(self.written) - 1)]] = 1
        self.calls += 1
        return found


def eager(model, spread=8.0):
    """The model with larger weights in its head, so that its choices differ from row to row."""
    with torch.no_grad():
        model.lm_head.weight.mul_(spread)
    return model


class TestDistribution:
    def test_is_the_softmax_at_the_last_position(self):
        logits = torch.tensor([[9.0, 0.0], [0.0, torch.log(torch.tensor(3.0))]])
        torch.testing.assert_close(next_token_distribution(logits), torch.tensor([0.25, 0.75]))

    def test_large_logits_do_not_overflow(self):
        found = next_token_distribution(torch.tensor([[1e30, 0.0, -1e30]]))
        assert found.tolist() == [1.0, 0.0, 0.0]

    def test_is_in_float32_at_least(self):
        assert next_token_distribution(torch.zeros(1, 3).bfloat16()).dtype == torch.float32
        assert next_token_distribution(torch.zeros(1, 3).double()).dtype == torch.float64

    def test_top_tokens_are_the_likeliest_in_order(self, tiny_model, tokenizer):
        found = top_tokens(tiny_model, tokenizer, "What is", k=3)
        logits = tiny_model(torch.tensor([tokenizer.encode("What is")])).logits[0]
        best = next_token_distribution(logits).sort(descending=True)
        assert [text for text, _ in found] == [tokenizer.decode([i]) for i in best.indices[:3]]
        assert [p for _, p in found] == pytest.approx(best.values[:3].tolist())


class TestStops:
    def test_are_the_end_marker_and_the_document_separator(self, tokenizer):
        expected = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
        assert stop_tokens(tokenizer) == set(expected)

    def test_a_begin_token_that_opens_turns_is_none(self, tokenizer):
        like_smollm2 = copy.deepcopy(tokenizer)
        like_smollm2.bos_token = "<|im_start|>"
        assert stop_tokens(like_smollm2) == {tokenizer.eos_token_id}

    def test_a_tokenizer_without_template_or_begin_has_its_end_token(self, tokenizer):
        bare = copy.deepcopy(tokenizer)
        bare.chat_template = bare.bos_token = None
        assert stop_tokens(bare) == {tokenizer.eos_token_id}

    def test_a_stop_token_ends_the_text_and_is_no_part_of_it(self, tiny_model, tokenizer):
        ids = tokenizer.encode("Paris.")
        model = Scripted(tiny_model, [*ids, tokenizer.eos_token_id, 99])
        found = generate(model, tokenizer, ["Hi"], max_new_tokens=20)
        assert found == [Generation("Paris.", ids, True)]
        assert model.calls == len(ids) + 1  # nothing is computed after the last row has stopped

    def test_a_text_that_reaches_the_limit_has_not_stopped(self, tiny_model, tokenizer):
        ids = tokenizer.encode("Paris.")
        model = Scripted(tiny_model, ids)
        assert generate(model, tokenizer, ["Hi"], max_new_tokens=len(ids)) == [
            Generation("Paris.", ids, False)
        ]

    def test_a_stop_token_at_the_limit_counts(self, tiny_model, tokenizer):
        model = Scripted(tiny_model, [99, tokenizer.bos_token_id])
        assert generate(model, tokenizer, ["Hi"], max_new_tokens=2)[0].stopped

    def test_a_model_that_stops_at_once_has_written_nothing(self, tiny_model, tokenizer):
        model = Scripted(tiny_model, [tokenizer.eos_token_id])
        assert generate(model, tokenizer, ["Hi"]) == [Generation("", [], True)]

    def test_the_start_of_another_turn_stays_visible(self, tiny_model, tokenizer):
        start = tokenizer.convert_tokens_to_ids("<|im_start|>")
        model = Scripted(tiny_model, [start, tokenizer.eos_token_id])
        assert generate(model, tokenizer, ["Hi"])[0].text == "<|im_start|>"


class TestBatches:
    def test_a_row_gets_the_answer_that_it_would_get_alone(self, tiny_model, tokenizer):
        model = eager(tiny_model)
        together = generate(model, tokenizer, PROMPTS, max_new_tokens=12)
        alone = [generate(model, tokenizer, [p], max_new_tokens=12)[0] for p in PROMPTS]
        assert together == alone
        assert len({tuple(g.ids) for g in together}) > 1  # the rows do differ

    def test_padding_shifts_no_position(self, tokenizer):
        # Rotary positions are relative and would hide a shift; learned positions do not.
        config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4)
        model = GPT2LMHeadModel(config).eval()
        with torch.no_grad():
            model.transformer.wpe.weight.normal_()  # so that a position decides what is written
        together = generate(model, tokenizer, PROMPTS, max_new_tokens=8)
        assert together == [generate(model, tokenizer, [p], 8)[0] for p in PROMPTS]

    def test_a_row_that_stops_first_waits_for_the_others(self, tiny_model, tokenizer):
        model = eager(tiny_model)
        free = generate(model, tokenizer, PROMPTS, max_new_tokens=12)
        early = copy.deepcopy(tokenizer)  # a token that one row writes becomes the end marker
        stop = next(i for i in free[0].ids if i not in free[1].ids)
        early.eos_token = tokenizer.convert_ids_to_tokens(stop)
        found = generate(model, early, PROMPTS, max_new_tokens=12)
        assert found[0].stopped
        assert found[0].ids == free[0].ids[: free[0].ids.index(stop)]
        assert found[1] == free[1]

    def test_the_order_of_the_prompts_is_kept(self, tiny_model, tokenizer):
        model = eager(tiny_model)
        found = generate(model, tokenizer, PROMPTS, max_new_tokens=5)
        turned = generate(model, tokenizer, PROMPTS[::-1], max_new_tokens=5, batch_size=3)
        assert turned[::-1] == found

    def test_texts_and_their_ids_are_the_same_prompt(self, tiny_model, tokenizer):
        ids = [tokenizer.encode(p) for p in PROMPTS]
        by_text = generate(tiny_model, tokenizer, PROMPTS, max_new_tokens=5)
        assert generate(tiny_model, tokenizer, ids, max_new_tokens=5) == by_text

    def test_no_prompts_give_no_answers(self, tiny_model, tokenizer):
        assert generate(tiny_model, tokenizer, []) == []

    def test_an_empty_prompt_is_named(self, tiny_model, tokenizer):
        with pytest.raises(WorkbookError, match="prompt 2 is empty"):
            generate(tiny_model, tokenizer, ["Hi", ""])

    def test_one_text_instead_of_a_list_is_refused(self, tiny_model, tokenizer):
        for ask in (generate, answer):
            with pytest.raises(WorkbookError, match=r"prompts is one text; put it into a list"):
                ask(tiny_model, tokenizer, "Hi")

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("max_new_tokens", -1),
            ("batch_size", 0),
            ("temperature", -0.5),
            ("temperature", float("nan")),
            ("seed", -1),
            ("seed", 2**64),
        ],
    )
    def test_an_option_out_of_its_range_is_refused(self, tiny_model, tokenizer, option, value):
        with pytest.raises(WorkbookError, match=f"^{option} is "):
            generate(tiny_model, tokenizer, ["Hi"], **{option: value})


class TestSampling:
    def test_is_reproducible_by_seed(self, tiny_model, tokenizer):
        def sample(seed):
            return generate(tiny_model, tokenizer, PROMPTS, 8, temperature=1.0, seed=seed)

        assert sample(1) == sample(1)
        assert sample(1) != sample(2)

    def test_leaves_the_global_random_state_alone(self, tiny_model, tokenizer):
        before = torch.get_rng_state()
        generate(tiny_model, tokenizer, PROMPTS, 3, temperature=1.0)
        assert torch.equal(torch.get_rng_state(), before)

    def test_at_a_very_low_temperature_is_greedy(self, tiny_model, tokenizer):
        model = eager(tiny_model)
        cold = generate(model, tokenizer, PROMPTS, 8, temperature=1e-6)
        assert cold == generate(model, tokenizer, PROMPTS, 8)


def test_the_mode_of_the_model_is_as_before_even_after_an_error(tiny_model, tokenizer):
    tiny_model.train()
    generate(tiny_model, tokenizer, ["Hi"], max_new_tokens=1)
    assert tiny_model.training
    with pytest.raises(IndexError):
        generate(tiny_model, tokenizer, [[10**9]], max_new_tokens=1)
    assert tiny_model.training


def test_answer_asks_in_the_chat_template(tiny_model, tokenizer):
    ids = encode(tokenizer, user("Hi"), add_generation_prompt=True)
    by_hand = generate(tiny_model, tokenizer, [ids], max_new_tokens=4)
    assert answer(tiny_model, tokenizer, ["Hi"], max_new_tokens=4) == by_hand
    assert answer(tiny_model, tokenizer, [user("Hi")], max_new_tokens=4) == by_hand


def test_generating_leaves_a_frozen_head_frozen(tiny_model, tokenizer):
    head = tiny_model.bfloat16().get_output_embeddings().weight
    for frozen in (True, False):
        head.requires_grad_(not frozen)
        (one,) = generate(tiny_model, tokenizer, ["What is"], max_new_tokens=2)
        assert head.requires_grad is not frozen
        assert not one.ids or isinstance(one.ids[0], int)
