"""Every causal language model that transformers builds, made tiny: its loss, LoRA and limits.

``python -m pytest tests/peers/test_architectures.py`` walks the library's own table of classes. The
tables below say which are refused, and what PEFT's ``all-linear`` has that ours leaves out.
"""

from __future__ import annotations

import copy
import re
from functools import partial

import peft
import pytest
import torch
import transformers
from peft.tuners.tuners_utils import _maybe_include_all_linear_layers
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

from sftlab.adapters import load_adapter, save_adapter
from sftlab.architectures import (
    CUT_OFF,
    PAST,
    UNUSED,
    check_adapters,
    check_loss,
    left_out,
    limits,
    silent_adapters,
)
from sftlab.errors import WorkbookError
from sftlab.lora import inject_lora, lora_layers, lora_parameters, merge_lora
from sftlab.loss import IGNORE_INDEX, ends_with_head, model_loss
from sftlab.results import save_result

# --- Tiny models ---------------------------------------------------------------------------------
# Settings that make a model tiny, by their value, wherever a configuration has them.
SIZES = {
    1: "pad_token_id decoder_start_token_id sep_token_id boi_token_id eoi_token_id mask_token_id "
    "n_group topk_group num_expert_group first_k_dense_replace num_blocks",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers depth "
    "num_encoder_layers num_decoder_layers num_key_value_heads linear_num_key_heads attn_layers "
    "num_kv_heads num_experts_per_tok num_experts_per_token moe_topk moe_k top_k moe_top_k "
    "type_vocab_size num_codebooks index_topk conf_num_hidden_layers num_lstm_layers",
    3: "eos_token_id bos_token_id",
    4: "num_attention_heads n_head n_heads num_heads attention_heads encoder_attention_heads "
    "decoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads num_experts "
    "n_routed_experts num_local_experts moe_num_experts linear_num_value_heads index_n_heads "
    "conf_num_attention_heads",
    8: "head_dim v_head_dim qk_nope_head_dim qk_rope_head_dim linear_key_head_dim dim_head d_kv "
    "linear_value_head_dim index_head_dim d_head kv_channels attention_head_dim chunk_size "
    "mamba_chunk_size vision_hidden_size",
    16: "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size state_size "
    "moe_shared_expert_intermediate_size shared_experts_intermediate_size kv_lora_rank q_lora_rank "
    "mamba_d_state ssm_state_size router_hidden_size ext_pw_out_channel nemo_conv_channels",
    32: "hidden_size d_model n_embd dim_model emb_dim embedding_size embedding_dim lru_width "
    "input_embedding_size output_embedding_size word_embed_proj_dim mamba_d_ssm output_dim "
    "hidden_size_global backbone_hidden_size out_hidden_size projector_input_dim "
    "projector_output_dim vision_output_dim output_channels",
    48: "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim d_ff dim_ff dff mlp_dim "
    "feed_forward_size ffn_hidden_size dense_intermediate_size intermediate_size_mlp "
    "expert_ffn_hidden_size",
    61: "max_position_embeddings n_positions n_ctx max_seq_len block_size context_length "
    "model_max_length max_target_positions",
    100: "vocab_size shape_vocab_size pronunciation_vocab_size encoder_hash_byte_group_vocab "
    "vocab_size_per_layer_input ngram_vocab_size_base",
}
SMALL = {name: size for size, names in SIZES.items() for name in names.split()}
# What changes the logits after the head; 1 or no limit by default in some configurations.
SMALL |= {"logits_scaling": 2, "logit_scale": 0.5, "lm_head_multiplier": 0.7}
CAPS = ("final_logit_softcapping", "output_logit_soft_cap")
# Settings that depend on each other, by the type of a configuration or a part of one.
LATENT = {"qk_head_dim": 16, "num_key_value_heads": 4}
LATENT_TYPES = "axk1 axk2 bailing_hybrid deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa minicpm3 youtu"  # fmt: skip
HYBRID = ["linear_attention", "full_attention"]
ROPE = {"rope_type": "default", "rope_theta": 1e4}
PARTS = dict.fromkeys(LATENT_TYPES.split(), LATENT) | {
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 16, "attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 4},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {
            "ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32
        },
    },
    "deepseek_v2": LATENT | {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 2},
    "dots1": {
        "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1,
        "topk_group": 1,
    },
    "dots3_note_text": LATENT | {
        "head_dim": 16, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 16, "swa_kv_lora_rank": 16, "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8,
    },
    "falcon_h1": {"mamba_n_heads": 4, "mamba_d_head": 8},
    "gemma3n_text": {
        "num_kv_shared_layers": 0, "intermediate_size": 48, "hidden_size_per_layer_input": 8,
        "activation_sparsity_pattern": None,
    },
    "gemma4_text": {"hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0},
    "gemma4_unified_text": {"num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {"mamba_n_heads": 4, "mamba_d_head": 16, "layer_types": HYBRID},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
    "kimi_linear": LATENT | {"linear_head_dim": 8, "linear_num_heads": 4, "layer_types": HYBRID},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": LATENT | {"zero_expert_num": 2},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {
        "hc_lowrank": 8, "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 8,
        "indexer_budget": 4, "indexer_compress_ratio": 2,
    },
    "recurrent_gemma": {"num_hidden_layers": 3},  # with one layer of attention
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [8, 24], "axial_pos_shape": [8, 8]},
    "roc_bert": {"shape_embed_dim": 8, "pronunciation_embed_dim": 8},
    "xlstm": {
        "embedding_dim": 128, "hidden_size": 128, "num_heads": 2, "num_blocks": 2,
        "qk_dim_factor": 1.0,
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 3, "layer_types": ["linear_attention", "hybrid", "hybrid"]},
    "zamba2": {
        "num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"]
    },
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
# Classes that cannot be built here, with the library's reason.
NOT_BUILT = {
    "gemma3n": "requires the timm library",  # for its vision part; gemma3n_text is built
    # They draft tokens for another model and read its keys and values.
    "gemma4_assistant": "hidden_size_per_layer_input must be 0",
    "gemma4_unified_assistant": "producing a cache is different",
}


def small(config) -> dict:
    """The settings of a configuration that make it tiny, those of its parts as well."""
    found = {}
    for name, value in config.to_dict().items():
        if name in config.sub_configs:
            found[name] = small(getattr(config, name)) if value else value
        elif name in SMALL and type(value) in (int, float) and value > 0:
            found[name] = SMALL[name]
        elif name in CAPS and value:
            found[name] = 3.0
        elif name == "layer_types" and value:
            found[name] = (list(dict.fromkeys(value)) * 2)[:2]
    return found | PARTS.get(config.model_type, {})


def tiny(kind: str, **settings):
    """A random model of this type in float32 whose weights are large enough to show in its loss."""
    model_class = getattr(transformers, CLASSES[kind])
    made = small(model_class.config_class()) | settings
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**made)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 and "A_log" not in name:
                p.normal_(std=0.2)
            elif name.endswith("bias"):
                p.normal_(std=0.1)
    return model


TINY = tiny


@pytest.fixture
def batch():
    """Two rows of unequal length, padded, with a prompt."""
    ids = torch.randint(10, 100, (2, 12))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    labels = ids.where(mask == 1, IGNORE_INDEX)
    labels[:, :4] = IGNORE_INDEX
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


# --- The walk ------------------------------------------------------------------------------------
# The types that are refused, by a part of the reason.
REASONS = {
    "is not causal": "bert bert-generation big_bird camembert cpmant data2vec-text electra ernie "
    "megatron-bert rembert roberta roberta-prelayernorm roc_bert roformer xlm xlm-roberta "
    "xlm-roberta-xl xlnet xmod",
    # The decoders of encoder-decoder models.
    "compares each position with its own token": "bart bigbird_pegasus blenderbot blenderbot-small "
    "marian mbart mvp pegasus plbart trocr whisper",
    "its loss is another one": "prophetnet",  # predicts several tokens ahead
    "input batch_size": "git musicgen musicgen_melody",  # need an image; have several codebooks
    "axial_pos_shape": "reformer",  # trains on rows of one length
}
REFUSED = {kind: reason for reason, kinds in REASONS.items() for kind in kinds.split()}
# Models whose logits are not head(decoder(...)): their own are used, at all positions.
OWN_LOGITS = (
    "beam cohere cohere2 cohere2_moe falcon_h1 gemma2 gemma3n_text granite granite_swa granitemoe "
    "granitemoe_swa granitemoehybrid granitemoeshared hyperclovax inkling_text inkling2_text "
    "llama4 llama4_text minicpm3 mllama modernbert-decoder nanochat recurrent_gemma vaultgemma "
    "xlstm"
)
# Adapters that no gradient reaches in a trial call, by a part of their names: they serve images or
# sound, or their output only selects tokens, or it is multiplied by a weight that starts at zero.
NO_GRADIENT = r"vision|audio|image|multi_modal|indexer|compressor|patcher"
STARTS_AT_ZERO = {
    "doge": r"dt_proj",
    "gemma3n_text": r"per_layer|altup|laurel",
    "zaya": r"q_proj|k_proj",
}


@pytest.mark.parametrize("kind", sorted(set(CLASSES) - set(NOT_BUILT)))
def test_an_architecture(kind, batch):
    """Refused with the reason, or trained with the library's loss and with adapters that learn."""
    model = tiny(kind)
    said = check_loss(model, batch)
    if kind in REFUSED:
        assert REFUSED[kind] in said
        return
    assert said is None
    own = model(**batch, use_cache=False).loss
    loss, count = model_loss(model, batch)
    assert (loss / count).item() == pytest.approx(own.item(), abs=1e-4)
    assert ends_with_head(model, batch) == (kind not in OWN_LOGITS.split())

    peft_config = peft.LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    theirs = set(_maybe_include_all_linear_layers(peft_config, model).target_modules)
    said = left_out(model)
    inject_lora(model, "all-linear", r=2, lora_alpha=4, seed=0)
    layers = lora_layers(model)
    named = {line.split()[2].rstrip(",") for line in said}
    assert set(layers) <= theirs
    assert {re.sub(r"\.\d+(?=\.)", ".*", f"{n}.weight") for n in theirs - set(layers)} <= named
    assert left_out(model) == said

    torch.testing.assert_close(model_loss(model, batch)[0], loss, rtol=0, atol=1e-4)
    silent = silent_adapters(model, batch)
    assert PAST not in silent.values()
    allowed = "|".join([NO_GRADIENT, *([STARTS_AT_ZERO[kind]] if kind in STARTS_AT_ZERO else [])])
    assert [name for name in silent if not re.search(allowed, name)] == []

    for layer in layers.values():
        nn.init.normal_(layer.B, std=0.05)
    adapted = model_loss(model, batch)[0].item()
    assert abs(adapted - loss.item()) > 1e-4
    assert model_loss(merge_lora(model), batch)[0].item() == pytest.approx(adapted, rel=1e-4)


@pytest.mark.parametrize("kind", NOT_BUILT)
def test_what_cannot_be_built_here(kind):
    with pytest.raises(Exception, match=NOT_BUILT[kind]):
        tiny(kind)


# --- What is refused -----------------------------------------------------------------------------
def test_a_loss_for_the_balance_of_experts_is_refused(batch):
    said = check_loss(tiny("mixtral", output_router_logits=True), batch)
    assert "adds a loss for the balance of its experts" in said
    assert "set output_router_logits to false" in said


def test_what_is_refused_names_both_losses_or_the_remedy(batch):
    assert re.search(
        r"own loss .* is \d\.\d{4} nats, .* is \d\.\d{4}", check_loss(tiny("bart"), batch)
    )
    assert "is_decoder=True" in check_loss(tiny("roberta"), batch)
    assert check_loss(tiny("roberta", is_decoder=True), batch) is None


def test_damaged_weights_are_named(batch):
    model = tiny("llama")
    model.model.norm.weight.data[0] = float("nan")
    assert "no numbers (NaN)" in check_loss(model, batch)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "mixtral", "mamba"])
def test_weights_of_16_bits_are_no_reason_to_refuse(kind, batch):
    assert check_loss(tiny(kind).to(torch.bfloat16), batch) is None
    assert "is not causal" in check_loss(tiny("bert").to(torch.bfloat16), batch)


def test_a_masked_vocabulary_is_no_reason_to_refuse(batch):
    """As where the head has more rows than there are tokens."""
    model = tiny("llama").requires_grad_(False)  # a trained head is multiplied by its weight itself
    model.lm_head.register_forward_hook(
        lambda _, __, logits: logits.masked_fill(torch.arange(100) == 1, -torch.inf)
    )
    assert check_loss(model, batch) is None


def test_a_row_of_one_token_is_enough_for_the_trial():
    batch = {"input_ids": torch.tensor([[7]]), "attention_mask": torch.tensor([[1]])}
    assert check_loss(tiny("llama"), batch) is None


@pytest.mark.parametrize("training", [True, False])
def test_the_checks_change_nothing(batch, training):
    model = inject_lora(tiny("gpt2"), "all-linear", r=2, lora_alpha=4, lora_dropout=0.5)
    model.train(training)
    model.transformer.h[0].eval()
    modes = [m.training for m in model.modules()]
    model_loss(model, batch)[0].backward()
    before = copy.deepcopy(model.state_dict()), [p.grad.clone() for p in lora_parameters(model)]
    trained = [p.requires_grad for p in model.parameters()]
    state = torch.get_rng_state()
    assert check_loss(model, batch) is None and check_adapters(model, batch) is None
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == trained
    after = model.state_dict(), [p.grad for p in lora_parameters(model)]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


# --- Adapters ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "kind",
    ["gpt2", "gpt_oss", "falcon_h1", "gemma3", "deepseek_v3", "qwen3_next", "beam", "qwen3_moe"],
)
def test_an_adapter_for_all_linear_layers_is_pefts(kind, batch, tmp_path):
    """GPT-2 stores its weights transposed, as PEFT's fan_in_fan_out; the last four have experts.

    Their dense layers and shared experts are called as PEFT calls fused experts.
    """
    tiny = partial(TINY, **({"mlp_only_layers": [0]} if kind == "qwen3_moe" else {}))
    ours = inject_lora(tiny(kind), "all-linear", r=2, lora_alpha=6, lora_dropout=0.1, seed=0)
    ours.eval()
    for layer in lora_layers(ours).values():
        nn.init.normal_(layer.B, std=0.1)
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    save_adapter(ours, tmp_path)
    theirs = peft.PeftModel.from_pretrained(tiny(kind), tmp_path).eval()
    again = load_adapter(tiny(kind), tmp_path).eval()
    with torch.no_grad():
        expected = ours(**inputs).logits
        torch.testing.assert_close(theirs(**inputs).logits, expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(again(**inputs).logits, expected, rtol=0, atol=1e-4)
        merged = theirs.merge_and_unload().state_dict()
        torch.testing.assert_close(merge_lora(ours).state_dict(), merged, rtol=0, atol=1e-5)


def test_a_layer_whose_weight_a_kernel_takes_is_refused_by_name():
    with pytest.raises(WorkbookError, match=r"mixer\.out_proj has its weight read by MambaMixer"):
        inject_lora(tiny("mamba"), ["in_proj", "out_proj"], r=2, lora_alpha=4)


def test_an_adapter_that_is_passed_by_is_found_by_the_trial(batch):
    """As where a kernel is put in from outside, so that no code of the model shows it."""
    model = inject_lora(tiny("llama"), "all-linear", r=2, lora_alpha=4)
    first, last = model.model.layers
    first.mlp.forward = lambda x: nn.functional.linear(x, first.mlp.gate_proj.weight)[..., :32]
    last.self_attn.register_forward_hook(lambda _, __, found: (found[0] * 0, None))
    silent = silent_adapters(model, batch)
    reasons = {name.removeprefix("model.layers."): why for name, why in silent.items()}
    assert reasons == {
        "0.mlp.gate_proj": PAST,
        **dict.fromkeys(["0.mlp.up_proj", "0.mlp.down_proj"], UNUSED),
        **dict.fromkeys([f"1.self_attn.{m}_proj" for m in "qkvo"], CUT_OFF),
    }
    said = check_adapters(model, batch)
    assert said.startswith("model.layers.0.mlp.gate_proj (1 layers in all) cannot take an adapter")
    assert said.endswith("without gate_proj")


# --- Limits --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "kind, hard",
    [("gpt2", True), ("opt", True), ("gptj", True), ("mpt", True), ("gpt_neo", True),
     ("llama", False), ("gemma3", False), ("falcon_h1", False), ("xglm", False)],
)  # fmt: skip
def test_a_row_longer_than_a_hard_limit_is_an_error_and_longer_than_another_is_not(kind, hard):
    model = tiny(kind)
    assert limits(model) == (61, hard, 100)
    model(torch.full((1, 61), 7), use_cache=False)
    longer = torch.full((1, 62), 7)
    if not hard:
        model(longer, use_cache=False)
        return
    with pytest.raises((IndexError, RuntimeError)):
        model(longer, use_cache=False)


@pytest.mark.parametrize("kind", ["mamba", "xlnet"])
def test_a_model_without_limit_on_positions(kind):
    """XLNet's configuration says -1."""
    assert limits(tiny(kind)) == (None, False, 100)


# --- Results -------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["laguna", "inkling2_text"])
def test_what_peft_misses_is_told(kind, tokenizer, tmp_path, capsys):
    model = inject_lora(tiny(kind), "all-linear", r=2, lora_alpha=6, seed=0)
    save_result(
        model, tokenizer, tmp_path / "a", base_name="almanac", run={}, history={}, end_ids=[2],
        adapter=True,
    )  # fmt: skip
    told = "PEFT does not load this adapter whole"
    assert told in capsys.readouterr().err and told in (tmp_path / "a" / "README.md").read_text()
    with pytest.warns(UserWarning, match="missing adapter keys"):
        peft.PeftModel.from_pretrained(tiny(kind), tmp_path / "a")


def test_the_tables_name_what_there_is():
    """Of 189 types 186 are built: 151 are trained, 25 of them with their own logits; 35 refused."""
    tables = [NOT_BUILT, REFUSED, OWN_LOGITS.split()]
    assert set().union(*tables) <= set(CLASSES)
    assert [len(CLASSES), *map(len, tables)] == [189, 3, 35, 25]
