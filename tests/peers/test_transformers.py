"""transformers as the oracle: its loss, its generate(), its template and its generation mask."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from sftlab.chat import chatml, encode, render
from sftlab.data import collate
from sftlab.generate import generate, stop_tokens
from sftlab.loss import (
    IGNORE_INDEX,
    accumulated_loss,
    mean_of_means,
    model_loss,
    sft_loss,
    token_nll,
)
from sftlab.masking import Example, mask_all_but_assistant, template_mask

PROMPTS = [
    "Hi",
    "What is the capital of France?",
    "List three tips for a job interview:",
    "The cat and the dog and the bird and the fish and the frog met in the park.",
]


@pytest.fixture
def batch():
    """Three rows of unequal length, padded, with prompts masked."""
    rows = []
    for length, prompt in ((9, 3), (5, 1), (7, 6)):
        ids = torch.randint(4, 4000, (length,)).tolist()
        rows.append(Example(ids, [IGNORE_INDEX] * prompt + ids[prompt:]))
    return collate(rows, pad_id=3)


# --- loss ----------------------------------------------------------------------------------------


def test_sft_loss_is_the_models_own_loss_with_labels(tiny_model, batch):
    found = tiny_model(**batch)
    torch.testing.assert_close(sft_loss(found.logits, batch["labels"]), found.loss, rtol=0, atol=1e-6)  # fmt: skip


def test_sft_loss_is_cross_entropy_of_shifted_logits(tiny_model, batch):
    logits, labels = tiny_model(**batch).logits, batch["labels"]
    expected = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )
    torch.testing.assert_close(sft_loss(logits, labels), expected, rtol=0, atol=1e-6)


def test_model_loss_is_the_sum_over_all_logits_and_so_is_its_gradient(tiny_model, batch):
    model = tiny_model.double()
    loss, count = model_loss(model, batch)
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    whole = model(**batch)
    expected = token_nll(whole.logits, batch["labels"]).sum()
    expected.backward()
    assert count == (batch["labels"][:, 1:] != IGNORE_INDEX).sum()
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        found, {n: p.grad for n, p in model.named_parameters()}, rtol=0, atol=1e-10
    )
    # The model's own loss is in float32 whatever the weights are.
    torch.testing.assert_close((loss / count).float(), whole.loss, rtol=0, atol=1e-6)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 10**6))
@settings(deadline=None)
def test_accumulated_loss_is_the_loss_of_the_full_batch_and_so_is_its_gradient(sizes, seed):
    """``sizes``: rows per micro-batch; every row has a prompt of its own length."""
    torch.manual_seed(seed)
    rows, length, vocabulary = sum(sizes), 8, 11
    logits = (4 * torch.randn(rows, length, vocabulary)).double().requires_grad_()
    labels = torch.randint(vocabulary, (rows, length))
    for row, prompt in enumerate(torch.randint(0, length, (rows,)).tolist()):
        labels[row, :prompt] = IGNORE_INDEX

    whole = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX
    )
    (expected,) = torch.autograd.grad(whole, logits)
    parts = list(zip(logits.split(sizes), labels.split(sizes), strict=True))
    found = accumulated_loss(parts)
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(found, logits)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_the_mean_of_means_is_another_number_when_token_counts_differ():
    logits = torch.randn(2, 6, 5, dtype=torch.float64)
    labels = torch.randint(5, (2, 6))
    labels[0, :4] = IGNORE_INDEX
    parts = list(zip(logits.split(1), labels.split(1), strict=True))
    assert abs(mean_of_means(parts) - accumulated_loss(parts)) > 1e-3


# --- decoding ------------------------------------------------------------------------------------


@pytest.fixture
def lively(tokenizer):
    """A random model whose choices differ from row to row and now and then are a stop token."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.3)
        # Stop tokens and a hundred others are the only ones that are ever written.
        model.lm_head.weight[100:] = 0
        model.lm_head.weight[list(stop_tokens(tokenizer))] *= 1.5
    return model


def theirs(model, tokenizer, prompts, new_tokens):
    """The ids that transformers' generate() writes after each prompt, up to the first stop token."""
    model = copy.deepcopy(model)
    stops = stop_tokens(tokenizer)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=new_tokens,
        eos_token_id=sorted(stops),
        pad_token_id=tokenizer.pad_token_id,
    )
    given = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    given.pop("token_type_ids", None)
    written = model.generate(**given)[:, given["input_ids"].shape[1] :].tolist()
    rows = []
    for row in written:
        end = next((i for i, token in enumerate(row) if token in stops), None)
        rows.append((row[:end], end is not None))
    return rows


def test_greedy_generate_is_transformers_generate_token_by_token(lively, tokenizer):
    prompts = [*PROMPTS, *(f"What is {n} plus {n + 1}?" for n in range(12))]
    found = generate(lively, tokenizer, prompts, max_new_tokens=24)
    expected = theirs(lively, tokenizer, prompts, 24)
    assert [(g.ids, g.stopped) for g in found] == expected
    assert {g.stopped for g in found} == {True, False}  # both endings were compared
    assert len({tuple(g.ids) for g in found}) > len(prompts) // 2


def test_greedy_generate_alone_is_transformers_generate_alone(lively, tokenizer):
    for prompt in PROMPTS:
        (found,) = generate(lively, tokenizer, [prompt], max_new_tokens=12)
        assert [(found.ids, found.stopped)] == theirs(lively, tokenizer, [prompt], 12)


@pytest.mark.base
def test_the_base_writes_what_transformers_generate_writes():
    from sftlab.models import load

    model, tokenizer = load("almanac")
    found = generate(model, tokenizer, PROMPTS, max_new_tokens=24)
    assert [(g.ids, g.stopped) for g in found] == theirs(model, tokenizer, PROMPTS, 24)


# --- templates and masks -------------------------------------------------------------------------

# Letters, digits, line ends, marks of several bytes, characters that templates use.
ALPHABET = st.sampled_from("abc XYZ019.,:?!\n\t'\"{}%<|>_éßñ中文🙂\u2028")
TEXTS = st.text(ALPHABET, min_size=1, max_size=40).filter(str.strip)
WORDS = st.sampled_from(
    ["user\nHi", "assistant\nHello.", "<|im_start", "im_end|>", "{% generation %}", "What is 1 plus 2?"]
)  # fmt: skip


@st.composite
def conversations(draw):
    """One to four exchanges, with or without a system turn, in any characters."""
    texts = TEXTS | WORDS
    messages = [{"role": "system", "content": draw(texts)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        messages.append({"role": "user", "content": draw(texts)})
        messages.append({"role": "assistant", "content": draw(texts)})
    return messages


many = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(messages=conversations(), prompt=st.booleans())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chatml_by_hand_is_the_template(tokenizer, messages, prompt):
    assert chatml(messages, prompt) == render(tokenizer, messages, prompt)
    assert chatml(messages[:-1], prompt) == render(tokenizer, messages[:-1], prompt)


@given(messages=conversations())
@many
def test_trained_tokens_are_exactly_the_assistant_turns_with_their_end_markers(tokenizer, messages):
    row = mask_all_but_assistant(tokenizer, messages)
    assert row.input_ids == encode(tokenizer, messages)
    spans, span = [], []
    for token, label in zip(row.input_ids, row.labels, strict=True):
        if label == IGNORE_INDEX and span:
            spans, span = [*spans, span], []
        elif label != IGNORE_INDEX:
            assert label == token
            span.append(token)
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    assert [tokenizer.decode(span) for span in spans] == [f"{text}<|im_end|>" for text in answers]
    assert all(span[-1] == tokenizer.eos_token_id for span in spans)


@given(messages=conversations())
@many
def test_our_mask_is_the_tokenizers_generation_mask(tokenizer, messages):
    assert mask_all_but_assistant(tokenizer, messages) == template_mask(tokenizer, messages)


# A template of another family, with a generation block of our own: turns open with a header token
# and close with another, there is a begin token, and texts are trimmed.
LLAMA3_STYLE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '<|pad|>\n\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] | trim + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] | trim + '<|im_end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|pad|>\n\n' }}{% endif %}"
)


@given(messages=conversations())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_our_mask_is_the_generation_mask_with_a_template_of_another_family(tokenizer, messages):
    other = copy.copy(tokenizer)
    other.chat_template = LLAMA3_STYLE
    assert mask_all_but_assistant(other, messages) == template_mask(other, messages)
