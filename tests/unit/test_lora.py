"""LoRA's arithmetic, its layer, and putting it into a model and taking it out."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from sftlab import adapters, architectures, lora
from sftlab.errors import WorkbookError

sizes = st.integers(1, 300)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(8, 12)
        self.v_proj = nn.Linear(8, 4, bias=False)
        self.up = nn.Linear(8, 8)

    def forward(self, x):
        return self.up(x) + self.q_proj(x)[..., :8] + self.v_proj(x).repeat(1, 2)


class Model(nn.Module):
    """Two blocks between an embedding and a head that may share its weight."""

    def __init__(self, tied=False):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.layers = nn.ModuleList([Block(), Block()])
        self.lm_head = nn.Linear(8, 20, bias=False)
        if tied:
            self.lm_head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.lm_head(x)


IDS = torch.arange(6)


def injected(model=None, targets="all-linear", r=2, alpha=6, trained=True, **options):
    """A model with LoRA whose B is not zero any more, as after training."""
    model = lora.inject_lora(model or Model(), targets, r, alpha, **options)
    if trained:
        for layer in lora.lora_layers(model).values():
            nn.init.normal_(layer.B)
    return model


def matrices(d_in, d_out, r):
    return torch.randn(d_out, d_in), torch.randn(r, d_in), torch.randn(d_out, r)


# --- Arithmetic ---------------------------------------------------------------------------------
def test_a_square_weight_of_4096_at_rank_8():
    assert lora.lora_parameter_count(4096, 4096, 8) == 65_536 == 4096**2 // 256


@settings(derandomize=True, deadline=None)
@given(sizes, sizes, st.integers(1, 32))
def test_the_count_is_that_of_the_two_matrices(d_in, d_out, r):
    layer = lora.LoRALinear(nn.Linear(d_in, d_out), r, alpha=1)
    assert lora.lora_parameter_count(d_in, d_out, r) == layer.A.numel() + layer.B.numel()


@settings(derandomize=True, deadline=None)
@given(sizes, sizes)
def test_break_even_is_the_last_rank_that_saves_parameters(d_in, d_out):
    r = lora.break_even_rank(d_in, d_out)
    assert lora.lora_parameter_count(d_in, d_out, r) < d_in * d_out
    assert lora.lora_parameter_count(d_in, d_out, r + 1) >= d_in * d_out


def test_break_even_of_a_square_weight_is_just_below_half_its_side():
    assert lora.break_even_rank(4096, 4096) == 2047
    assert lora.break_even_rank(5, 5) == 2
    assert lora.break_even_rank(1, 7) == 0


def test_scaling_rules():
    assert lora.lora_scale(16, 8) == 2
    assert lora.lora_scale(16, 4, "rslora") == 8
    assert lora.lora_scale(16, 8, "plain") == 16
    with pytest.raises(ValueError, match="'dora'"):
        lora.lora_scale(16, 8, "dora")


def test_doubling_alpha_doubles_the_update_exactly():
    _, A, B = matrices(7, 5, 3)
    once, twice = (lora.effective_update(A, B, alpha, 3) for alpha in (12, 24))
    assert once.shape == (5, 7)
    assert torch.equal(twice, 2 * once)


def test_the_update_entry_by_entry():
    A, B = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]), torch.tensor([[1.0, 10.0]])
    expected = [[1.5, 18.0, 4.5]]  # 3/2 · (1·[1, 2, 3] + 10·[0, 1, 0])
    assert lora.effective_update(A, B, alpha=3, r=2).tolist() == expected


def test_merging_adds_the_update_and_unmerging_takes_it_away():
    W, A, B = matrices(7, 5, 3)
    merged = lora.merge(W, A, B, alpha=12, r=3)
    torch.testing.assert_close(merged - W, lora.effective_update(A, B, 12, 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(lora.unmerge(merged, A, B, 12, 3), W, rtol=0, atol=1e-6)


def test_merging_into_bfloat16_rounds_once_and_may_lose_a_small_update():
    W = torch.ones(4, 4, dtype=torch.bfloat16)
    A, B = torch.ones(1, 4), torch.ones(4, 1)
    assert torch.equal(lora.merge(W, A, B, alpha=1 / 512, r=1), W)  # too small to be seen
    assert (lora.merge(W, A, B, alpha=1 / 64, r=1) == 1 + 1 / 64).all()


# --- The layer ----------------------------------------------------------------------------------
STARTS = {  # which of the two gradients is not zero at the first step, and whether B·A is zero
    "A random": (False, True, True),
    "B random": (True, False, True),
    "both zero": (False, False, True),
    "both random": (True, True, False),
}


@pytest.mark.parametrize("how", STARTS)
def test_four_starts(how):
    base, x = nn.Linear(8, 6), torch.randn(5, 8)
    layer = lora.LoRALinear(base, r=3, alpha=12)
    lora.init_lora_(layer.A, layer.B, how)
    layer(x).square().sum().backward()
    a_learns, b_learns, starts_at_base = STARTS[how]
    assert bool(layer.A.grad.any()) == a_learns
    assert bool(layer.B.grad.any()) == b_learns
    assert torch.equal(layer(x), base(x)) == starts_at_base


def test_the_random_matrix_stays_within_one_over_the_root_of_its_width():
    A, B = torch.empty(64, 100), torch.empty(300, 64)
    lora.init_lora_(A, B, "both random")
    assert 0.095 < A.abs().max() <= 1 / math.sqrt(100)
    assert 0.120 < B.abs().max() <= 1 / math.sqrt(64)


def test_an_unknown_start_is_refused():
    with pytest.raises(ValueError, match="'zeros'"):
        lora.init_lora_(torch.empty(2, 3), torch.empty(4, 2), "zeros")


def test_only_a_and_b_are_trained():
    layer = lora.LoRALinear(nn.Linear(8, 6), r=3, alpha=12)
    assert [name for name, p in layer.named_parameters() if p.requires_grad] == ["A", "B"]


def test_a_rank_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        lora.LoRALinear(nn.Linear(8, 6), r=0, alpha=12)


@pytest.mark.parametrize("rule", ["lora", "rslora", "plain"])
def test_the_layer_adds_the_scaled_product(rule):
    base, x = nn.Linear(8, 6), torch.randn(2, 5, 8)
    layer = lora.LoRALinear(base, r=3, alpha=12, rule=rule)
    nn.init.normal_(layer.B)
    added = lora.lora_scale(12, 3, rule) * x @ layer.A.T @ layer.B.T
    torch.testing.assert_close(layer(x), base(x) + added, rtol=0, atol=1e-5)


def test_dropout_acts_in_training_only():
    layer = lora.LoRALinear(nn.Linear(8, 6), r=3, alpha=12, dropout=0.5)
    nn.init.normal_(layer.B)
    x = torch.randn(5, 8)
    assert not torch.equal(layer.train()(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


def test_over_a_bfloat16_base_the_adapter_stays_in_float32():
    layer = lora.LoRALinear(nn.Linear(8, 6).to(torch.bfloat16), r=3, alpha=12)
    assert layer.A.dtype == layer.B.dtype == torch.float32
    assert layer(torch.randn(5, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_merged_layer_gives_the_same_output_and_does_not_add_twice():
    layer = lora.LoRALinear(nn.Linear(8, 6), r=3, alpha=12)
    nn.init.normal_(layer.B)
    x, W = torch.randn(5, 8), layer.base.weight.clone()
    expected = layer(x)
    for _ in range(2):  # the second call finds it merged already
        layer.merge()
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)
    for _ in range(2):
        layer.unmerge()
        torch.testing.assert_close(layer.base.weight, W, rtol=0, atol=1e-6)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)


# --- Into a model and out -----------------------------------------------------------------------
def test_injection_changes_no_output_and_freezes_all_else():
    model = Model()
    before = model(IDS)
    injected(model, trained=False)
    assert torch.equal(model(IDS), before)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 6 and all(name[-2:] in (".A", ".B") for name in trained)
    assert [id(p) for p in lora.lora_parameters(model)] == [
        id(p) for p in model.parameters() if p.requires_grad
    ]


@pytest.mark.parametrize(
    "targets, expected",
    [
        ("q_proj", ["layers.0.q_proj", "layers.1.q_proj"]),
        (["layers.1.up", "v_proj"], ["layers.0.v_proj", "layers.1.v_proj", "layers.1.up"]),
        (["lm_head"], ["lm_head"]),
        ("all-linear", [f"layers.{i}.{n}" for i in (0, 1) for n in ("q_proj", "v_proj", "up")]),
    ],
)
def test_targets_are_ends_of_names(targets, expected):
    assert list(lora.lora_layers(injected(targets=targets))) == expected


@pytest.mark.parametrize("targets", ["proj", ["q_proj", "proj"]])
def test_a_target_that_matches_nothing_names_the_layers_there_are(targets):
    with pytest.raises(WorkbookError, match=r"called proj\. .*: lm_head, q_proj, up, v_proj"):
        lora.inject_lora(Model(), targets, r=2, lora_alpha=4)


def test_no_target_at_all_is_refused():
    with pytest.raises(WorkbookError, match="target_modules is empty"):
        lora.inject_lora(Model(), [], r=2, lora_alpha=4)


def test_injecting_twice_is_refused():
    with pytest.raises(WorkbookError, match="has LoRA layers already"):
        lora.inject_lora(injected(), "q_proj", r=2, lora_alpha=4)


def test_a_tied_head_is_refused_as_a_target_and_left_out_of_all_linear():
    with pytest.raises(WorkbookError, match="lm_head shares its weight"):
        lora.inject_lora(Model(tied=True), "lm_head", r=2, lora_alpha=4)
    assert "lm_head" not in lora.lora_layers(injected(Model(tied=True)))


def test_a_seed_fixes_the_start_whatever_was_drawn_before():
    first = lora.lora_parameters(injected(trained=False, seed=3))
    torch.randn(7)
    second = lora.lora_parameters(injected(trained=False, seed=3))
    other = lora.lora_parameters(injected(trained=False, seed=4))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[4][:, :8])  # layers differ from each other


def test_injection_keeps_eval_mode():
    model = injected(Model().eval(), lora_dropout=0.5)
    assert torch.equal(model(IDS), model(IDS))


def test_disabled_the_model_is_the_base_and_then_itself_again():
    model = Model()
    base = model(IDS)
    tuned = injected(model)(IDS)
    with pytest.raises(KeyError), lora.disable_lora(model):
        assert torch.equal(model(IDS), base)
        raise KeyError("the model comes back even so")
    assert torch.equal(model(IDS), tuned) and not torch.equal(tuned, base)


def test_a_merged_layer_cannot_be_disabled():
    model = injected()
    model.layers[1].up.merge()
    with (
        pytest.raises(WorkbookError, match=r"layers\.1\.up is merged"),
        lora.disable_lora(model),
    ):
        pass


def test_merging_the_model_leaves_plain_layers_with_the_same_outputs():
    model = injected()
    expected, names = model(IDS), list(Model().state_dict())
    model.layers[0].up.merge()  # one of them is merged before
    lora.merge_lora(model)
    assert not lora.lora_layers(model) and list(model.state_dict()) == names
    torch.testing.assert_close(model(IDS), expected, rtol=0, atol=1e-5)
    with pytest.raises(WorkbookError, match="nothing to merge"):
        lora.merge_lora(model)


# --- What can take an adapter -------------------------------------------------------------------
class Conv1D(nn.Module):
    """A linear layer as GPT-2 has it; transformers' class has the same name and attributes."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


class Router(nn.Linear):
    def forward(self, x):
        return super().forward(x).topk(1)


class Experts(nn.Module):
    """Experts in one parameter, a router, and a layer whose weight is used past the layer."""

    def __init__(self):
        super().__init__()
        self.router, self.fused, self.up = Router(8, 3), nn.Linear(8, 4), nn.Linear(4, 8)
        self.stacked, self.scale_bias = (nn.Parameter(torch.randn(3, 8, 8)) for _ in range(2))
        self.up.weight = nn.Parameter(torch.randn(8, 4))

    def forward(self, x):
        x = x.to(self.up.weight.dtype) + self.up.weight[0, 0]
        return self.up(nn.functional.linear(x, self.fused.weight)) + x @ self.stacked[0]


LEFT_OUT = [
    "not adapted: layers.*.stacked, 2 × (3, 8, 8), 33.9% of the weights; belongs to Experts, which is no plain linear layer",
    "not adapted: layers.*.fused.weight, 2 × (4, 8), 5.6% of the weights; has its weight read by Experts itself, past any adapter",
    "not adapted: layers.*.router.weight, 2 × (3, 8), 4.2% of the weights; belongs to Router, which is no plain linear layer",
]


def test_what_all_linear_leaves_out_is_said_before_and_after():
    model = nn.ModuleDict({"embed": nn.Embedding(20, 8), "layers": nn.ModuleList([Experts(), Experts()])})  # fmt: skip
    assert architectures.left_out(model) == LEFT_OUT
    assert architectures.left_out(model, ["up"]) == []
    lora.inject_lora(model, "all-linear", r=2, lora_alpha=4)
    assert list(lora.lora_layers(model)) == ["layers.0.up", "layers.1.up"]
    assert architectures.left_out(model, ["all-linear"]) == LEFT_OUT


def test_all_linear_leaves_out_nothing_of_a_plain_model():
    assert architectures.left_out(Model()) == architectures.left_out(Model(tied=True)) == []


def test_a_layer_whose_weight_is_read_past_it_is_refused_as_a_target():
    model = nn.ModuleList([Experts()])
    with pytest.raises(
        WorkbookError, match=r"0\.fused has its weight read by Experts itself.*leave"
    ):
        lora.inject_lora(model, ["up", "fused"], r=2, lora_alpha=4)
    assert not lora.lora_layers(model)


def test_a_layer_that_stands_in_two_places_is_left_out_of_all_linear():
    """Only one of the places would get the adapter."""
    model = Model()
    model.layers[1].up = model.layers[0].up
    (line,) = architectures.left_out(model)
    assert (
        line.startswith("not adapted: layers.*.up.weight, 1 × (8, 8)")
        and "shares its weight" in line
    )
    assert "layers.0.up" not in lora.lora_layers(injected(model))


def test_a_block_that_stands_in_two_places_has_its_adapters_in_both():
    model = Model()
    model.layers[1] = model.layers[0]
    assert architectures.left_out(model) == []
    injected(model)
    assert model.layers[1].up is model.layers[0].up and isinstance(model.layers[1].up, lora.LoRALinear)  # fmt: skip


def test_a_transposed_layer_is_the_linear_layer_with_the_transposed_weight():
    conv, linear, x = Conv1D(12, 8), nn.Linear(8, 12), torch.randn(5, 8)
    linear.load_state_dict({"weight": conv.weight.T, "bias": conv.bias})
    pair = [nn.ModuleDict({"c_attn": layer}) for layer in (conv, linear)]
    first, second = (injected(m, r=3, seed=1, trained=False)["c_attn"] for m in pair)
    assert torch.equal(first.A, second.A) and first.B.shape == (12, 3)
    nn.init.normal_(second.B)
    first.B.data.copy_(second.B)
    torch.testing.assert_close(first(x), second(x), rtol=0, atol=1e-5)
    expected, before = first(x), conv.weight.clone()
    for layer in (first, second):
        layer.merge()
    torch.testing.assert_close(conv.weight, linear.weight.T, rtol=0, atol=1e-6)
    torch.testing.assert_close(first(x), expected, rtol=0, atol=1e-5)
    first.unmerge()
    torch.testing.assert_close(conv.weight, before, rtol=0, atol=1e-5)


# --- Files --------------------------------------------------------------------------------------
def fresh_copy(model):
    """The base again, without its adapters."""
    base = Model()
    state = {k.replace(".base.", "."): v for k, v in model.state_dict().items()}
    base.load_state_dict({k: state[k] for k in base.state_dict()})
    return base


@pytest.mark.parametrize("rule", ["lora", "rslora", "plain"])
@pytest.mark.parametrize("targets", ["all-linear", ["layers.1.up", "v_proj"]])
def test_saved_and_loaded_gives_the_same_outputs(tmp_path, targets, rule):
    model = injected(targets=targets, rule=rule, lora_dropout=0.1).eval()
    folder = adapters.save_adapter(model, tmp_path / "new" / "adapter", base_name="almanac-base")
    loaded = adapters.load_adapter(fresh_copy(model).eval(), folder)
    assert torch.equal(loaded(IDS), model(IDS))
    config = json.loads((folder / adapters.CONFIG).read_text())
    assert config["base_model_name_or_path"] == "almanac-base"


def test_an_adapter_loads_into_layers_that_are_there_already(tmp_path):
    model = injected()
    adapters.save_adapter(model, tmp_path)
    again = adapters.load_adapter(injected(fresh_copy(model)), tmp_path)
    assert torch.equal(again(IDS), model(IDS))


def test_the_file_is_as_large_as_the_parameters(tmp_path):
    model = injected()
    adapters.save_adapter(model, tmp_path)
    stored = sum(t.numel() for t in load_file(tmp_path / adapters.WEIGHTS).values())
    assert stored == 2 * sum(lora.lora_parameter_count(8, d_out, 2) for d_out in (12, 4, 8))


def test_a_model_without_adapters_saves_nothing(tmp_path):
    with pytest.raises(WorkbookError, match="no adapter to save"):
        adapters.save_adapter(Model(), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("name", [adapters.CONFIG, adapters.WEIGHTS])
def test_a_missing_file_is_named(tmp_path, name):
    adapters.save_adapter(injected(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(WorkbookError, match=f"has no {name}"):
        adapters.load_adapter(Model(), tmp_path)


@pytest.mark.parametrize("name", [adapters.CONFIG, adapters.WEIGHTS])
def test_a_damaged_file_is_one_clear_sentence(tmp_path, name):
    adapters.save_adapter(injected(), tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:50])
    with pytest.raises(WorkbookError, match=f"{tmp_path.name}.* is damaged"):
        adapters.load_adapter(Model(), tmp_path)


KEY = "base_model.model.layers.0.q_proj.lora_B.weight"


def drop(tensors):
    del tensors[KEY]


def add(tensors):
    tensors[KEY.replace("q_proj", "o_proj")] = tensors[KEY].clone()


def other_layer(tensors):
    for m in "AB":
        key = KEY.replace("lora_B", f"lora_{m}")
        tensors[key.replace("q_proj", "o_proj")] = tensors.pop(key)


def reshape(tensors):
    tensors[KEY] = torch.zeros(5, 2)


@pytest.mark.parametrize(
    "damage, message",
    [
        (drop, r"q_proj\.lora_B\.weight is missing \(1 in all\)"),
        (add, r"no place for base_model\.model\.layers\.0\.o_proj"),
        (other_layer, r"No linear layer is called layers\.0\.o_proj"),
        (reshape, r"q_proj\.lora_B\.weight is \(5, 2\), this model needs \(12, 2\)"),
        (dict.clear, "holds no LoRA tensors"),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_the_model_stays_as_it_was(tmp_path, damage, message):
    adapters.save_adapter(injected(), tmp_path)
    tensors = load_file(tmp_path / adapters.WEIGHTS)
    damage(tensors)
    save_file(tensors, tmp_path / adapters.WEIGHTS)
    model = Model()
    before = model(IDS)
    with pytest.raises(WorkbookError, match=message):
        adapters.load_adapter(model, tmp_path)
    assert not lora.lora_layers(model) and torch.equal(model(IDS), before)


@pytest.mark.parametrize(
    "change",
    [{"peft_type": "IA3"}, {"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}],
)
def test_what_is_not_plain_lora_is_refused(tmp_path, change):
    adapters.save_adapter(injected(), tmp_path)
    config = json.loads((tmp_path / adapters.CONFIG).read_text())
    (tmp_path / adapters.CONFIG).write_text(json.dumps(config | change))
    with pytest.raises(WorkbookError, match="not plain LoRA"):
        adapters.load_adapter(Model(), tmp_path)


def test_a_model_that_scales_otherwise_is_refused(tmp_path):
    adapters.save_adapter(injected(alpha=6), tmp_path)
    model = injected(alpha=8)
    before = model(IDS)
    with pytest.raises(WorkbookError, match=r"q_proj scales by 4, not by 3"):
        adapters.load_adapter(model, tmp_path)
    assert torch.equal(model(IDS), before)


def test_an_adapter_is_not_loaded_into_merged_layers(tmp_path):
    model = injected()
    adapters.save_adapter(model, tmp_path)
    model.layers[0].q_proj.merge()
    with pytest.raises(WorkbookError, match=r"layers\.0\.q_proj is merged"):
        adapters.load_adapter(model, tmp_path)
