"""Checks of notebook 21: packing a model's linear layers, and counting bytes by kind and dtype."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from sftlab._internal.random_state import own_random_state
from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.ex21_qlora_finetuning.census import census
from sftlab.memory.count import stored_bytes, weight_count
from sftlab.quantized_layers import _bitsandbytes, keep_weights_in_place, quantize_model_linears

QUANTIZE, CENSUS = "21.quantize_model_linears", "21.census"


def _is_head(name: str) -> bool:
    return name.rpartition(".")[2] == "lm_head"


class _Block(nn.Module):
    """Widths are multiples of 64: for others bitsandbytes compiles its unpacking, which takes seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(64, 128)
        self.down = nn.Linear(128, 64, bias=False)
        self.norm = nn.LayerNorm(64)
        self.heads = nn.Linear(64, 192)  # "head" is part of its name; no output head
        self.score_head = nn.Linear(64, 64)  # its name ends in "head"; no output head
        self.lm_head_2 = nn.Linear(64, 64)  # its name holds "lm_head"; no output head
        self.my_lm_head = nn.Linear(64, 64)  # its name ends in "lm_head"; no output head
        self.lm_head = nn.Linear(64, 64)  # an output head inside of a block, as some models have it
        self.deep = nn.Sequential(nn.Sequential(nn.Sequential(nn.Linear(64, 64))))


class Small(nn.Module):
    """An embedding that is the output head as well, and a block of linear layers and a norm."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(53, 64)
        self.block = _Block()
        self.lm_head = nn.Linear(64, 53, bias=False)
        self.gate = nn.Linear(64, 128)  # the last linear layer is not the head
        self.scale = nn.Parameter(torch.ones(5))
        self.register_buffer("positions", torch.arange(11.0))
        if tied:
            self.lm_head.weight = self.embed.weight


@functools.cache
def _warmed_up() -> None:
    """Import bitsandbytes and pack and unpack once, which takes seconds, before an answer's time begins."""
    bnb = _bitsandbytes()
    weight = bnb.nn.Params4bit(torch.ones(2, 64), False, quant_type="nf4").to("cpu")
    bnb.functional.dequantize_4bit(weight.data, weight.quant_state)


@functools.cache
def _model(dtype: torch.dtype = torch.bfloat16, tied: bool = True) -> nn.Module:
    _warmed_up()
    with own_random_state(seed=0):
        return Small(tied).to(dtype).eval()


# --- Packing: mistakes ---------------------------------------------------------------------------
def pack(
    model: nn.Module, choose: Callable[[str, nn.Module], bool] = lambda name, m: type(m) is nn.Linear and not _is_head(name),
    quant_type: str = "nf4", double: bool = True, dtype: Callable[[torch.Tensor], Any] = lambda weight: weight.dtype,
    bias: Callable[[Any], Any] = lambda bias: bias, moved: bool = True, guard: bool = True,
    data: Callable[[torch.Tensor], torch.Tensor] = lambda weight: weight,
) -> nn.Module:  # fmt: skip
    """Replace the chosen linear layers by 4-bit ones. Other settings than these are mistakes."""
    bnb = _bitsandbytes()
    for name, old in [(n, m) for n, m in model.named_modules() if choose(n, m)]:
        new = bnb.nn.Linear4bit(
            old.in_features, old.out_features, bias=False, compute_dtype=dtype(old.weight),
            compress_statistics=double, quant_type=quant_type, device="meta",
        )  # fmt: skip
        weight = bnb.nn.Params4bit(
            data(old.weight.data),
            requires_grad=False,
            compress_statistics=double,
            quant_type=quant_type,
            module=new,
        )
        new.weight, new.bias = weight.to("cpu") if moved else weight, bias(old.bias)
        model.set_submodule(name, new)
    return keep_weights_in_place(model) if guard else model


def _packing(message: str, after: Callable[[nn.Module], Any] = lambda model: model,
             before: Callable[[nn.Module], nn.Module] = lambda model: model, **settings: Any) -> None:  # fmt: skip
    def answer(model):
        return after(pack(before(model), **settings))

    mistake(QUANTIZE, message)(answer)


def _plain(module: nn.Module) -> bool:
    return type(module) is nn.Linear


_packing("The output head is packed as well. It shares its weight with the embedding and writes the logits: leave lm_head as it is.",
         choose=lambda name, m: _plain(m))  # fmt: skip
_packing("No linear layer is packed. The new layers have to be put into the model.", choose=lambda name, m: False)  # fmt: skip


@mistake(QUANTIZE, "The new layers are Linear8bitLt, which takes 8 bits for a weight. Replace the old ones by Linear4bit.")  # fmt: skip
def _eight_bits(model):
    for name, old in [(n, m) for n, m in model.named_modules() if _plain(m) and not _is_head(n)]:
        new = _bitsandbytes().nn.Linear8bitLt(old.in_features, old.out_features, device="meta")
        new.bias = old.bias
        model.set_submodule(name, new)
    return model


_packing("Only linear layers at the top of the model are packed. Most of them lie inside blocks: named_modules() lists every depth.",
         choose=lambda name, m: _plain(m) and not _is_head(name) and "." not in name)  # fmt: skip
_packing("Only linear layers down to some depth are packed. They lie at any depth: named_modules() lists all of them.",
         choose=lambda name, m: _plain(m) and not _is_head(name) and name.count(".") < 2)  # fmt: skip
_packing("A layer is left out because its name contains the word head. Only lm_head is left as it is.",
         choose=lambda name, m: _plain(m) and "head" not in name)  # fmt: skip
_packing("A layer is left out because its name ends in head. Only the one called lm_head is left as it is.",
         choose=lambda name, m: _plain(m) and not name.endswith("head"))  # fmt: skip
_packing("A layer is left out because its name contains lm_head. Only the one called so is left as it is.",
         choose=lambda name, m: _plain(m) and "lm_head" not in name)  # fmt: skip
_packing("A layer is left out because its name ends in lm_head. After the last dot, only lm_head itself is the output head.",
         choose=lambda name, m: _plain(m) and not name.endswith("lm_head"))  # fmt: skip
_packing("An lm_head inside another module is packed. The last part of its name counts, after the last dot.",
         choose=lambda name, m: _plain(m) and name != "lm_head")  # fmt: skip
_packing("The last linear layer is taken for the output head, which need not come last. Leave out the one called lm_head.",
         choose=lambda name, m: _plain(m) and name != "gate")  # fmt: skip
_packing("Layers with a bias are left out. They are linear layers like the others.",
         choose=lambda name, m: _plain(m) and not _is_head(name) and m.bias is None)  # fmt: skip
_packing("Only the first linear layer is packed.", choose=lambda name, m: name == "block.up")
_packing("Layers without a bias are left out. They are linear layers like the others.",
         choose=lambda name, m: _plain(m) and not _is_head(name) and m.bias is not None)  # fmt: skip
_packing("The weights are of type fp4, the default of bitsandbytes. Set quant_type to nf4.", quant_type="fp4")  # fmt: skip
_packing("The scales are kept in 32 bits, so a weight takes 4.5 bits and not 4.127. Double quantization is compress_statistics.", double=False)  # fmt: skip
_packing("The weights are not packed yet. bitsandbytes packs a Params4bit when it is moved to a device with to().", moved=False)  # fmt: skip
_packing("Products are computed in float32, whatever dtype the weight had. Set compute_dtype.", dtype=lambda weight: torch.float32)  # fmt: skip
_packing("Products are computed in bfloat16, whatever dtype the weight had.", dtype=lambda weight: torch.bfloat16)  # fmt: skip
_packing(
    "compute_dtype is not set, so bitsandbytes chooses it by the input.", dtype=lambda weight: None
)
_packing("The biases are lost.", bias=lambda bias: None)
_packing("The biases are not those of the model but new ones.", bias=lambda bias: None if bias is None else nn.Parameter(torch.zeros_like(bias)))  # fmt: skip
_packing("The biases are cast to float32. They keep their dtype.", bias=lambda bias: None if bias is None else nn.Parameter(bias.detach().float()))  # fmt: skip
_packing("The packed weights have other numbers than the model's: they are those of new layers.",
         data=lambda weight: torch.ones_like(weight))  # fmt: skip
_packing("keep_weights_in_place is not called at the end. On some processors the first answer in eval mode then rearranges the weights, and no gradient passes any more.",
         guard=False)  # fmt: skip
_packing("It returns nothing. Return the model, although it is changed in place.", after=lambda model: None)  # fmt: skip
_packing("A copy of the model is packed and returned. Two models may not fit into memory: change the given one.", before=copy.deepcopy)  # fmt: skip


def _cast(model):
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.LayerNorm)):
            module.float()
    return model


_packing("Embedding and norm are cast to float32, which doubles them. Only the linear layers change.", before=_cast)  # fmt: skip


# --- Packing: what is compared -------------------------------------------------------------------
def _packed_layers(model: nn.Module) -> dict[str, nn.Module]:
    layer = _bitsandbytes().nn.Linear4bit
    return {name: m for name, m in model.named_modules() if isinstance(m, layer)}


def _of_each(see: Callable[[nn.Module], Any]) -> Callable[[Any, tuple], dict | None]:
    """Compare something of each packed layer."""

    def observe(model: Any, given: tuple) -> dict | None:
        return (
            None if model is None else {n: see(m) for n, m in sorted(_packed_layers(model).items())}
        )

    return observe


def _see_layers(model: Any, given: tuple) -> dict | None:
    if model is None:
        return None
    linears = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and not _is_head(n)]
    packed = _packed_layers(model)
    others = {type(m).__name__ for m in linears if m not in packed.values()}
    return {
        "packed layers": set(packed),
        "types of other linear layers": others,
        "it is the given model": model is given[0],
    }


def _see_weight(layer: nn.Module) -> dict:
    state = getattr(layer.weight, "quant_state", None)
    kept = {
        "dtype of the weight": str(layer.weight.dtype),
        "quant_type": getattr(state, "quant_type", None),
    }
    if state is None:
        return kept
    unpack = _bitsandbytes().functional.dequantize_4bit
    return kept | {
        "inputs and outputs": [layer.in_features, layer.out_features],
        "double quantization": bool(state.nested),
        "weights": unpack(layer.weight.data, state)
        .bfloat16()
        .float(),  # may have been packed from float32
        "trained": layer.weight.requires_grad,
    }


def _see_bias(layer: nn.Module) -> dict:
    bias = layer.bias
    return (
        {}
        if bias is None
        else {"dtype of the bias": str(bias.dtype), "bias": bias.detach().float()}
    )


def _see_rest(model: Any, given: tuple) -> dict | None:
    if model is None:
        return None
    linears = {n for n, m in model.named_modules() if isinstance(m, nn.Linear) and not _is_head(n)}
    return {
        n: {"dtype": str(p.dtype), "numbers": p.detach().float()}
        for n, p in model.named_parameters()
        if n.rpartition(".")[0] not in linears
    }


class _Rearranging(dict):
    """The children of a module. A 4-bit layer put among them may be rearranged, as on a processor with AVX512-BF16."""

    def __setitem__(self, name: str, child: Any) -> None:
        if isinstance(child, _bitsandbytes().nn.Linear4bit):
            child.support_avx512bf16_for_cpu = True
        super().__setitem__(name, child)


def _on_any_processor() -> nn.Module:
    """Return a model whose new layers may be rearranged until they are protected."""
    model = copy.deepcopy(_model())
    for module in list(model.modules()):
        module.__dict__["_modules"] = _Rearranging(module._modules)
    return model


def _pack_case(
    rule: str, remark: str, observe: Callable, dtype: torch.dtype = torch.bfloat16,
    model: Callable[[], nn.Module] | None = None,
) -> Case:  # fmt: skip
    stored = str(dtype).removeprefix("torch.")
    return Case(
        f"`quantize_model_linears(model)`, a model in {stored}: {remark}",
        lambda: (model() if model else copy.deepcopy(_model(dtype)),), quantize_model_linears, 1e-6,
        in_place=True, rule=rule, observe=observe,
    )  # fmt: skip


PACK_CASES = (
    _pack_case("layers", "which layers are packed", _see_layers),
    _pack_case("weights", "the packed weights", _of_each(_see_weight)),
    _pack_case("compute", "in which dtype products are computed", _of_each(lambda layer: str(layer.compute_dtype))),
    _pack_case("compute", "in which dtype products are computed", _of_each(lambda layer: str(layer.compute_dtype)), torch.float32),
    _pack_case("rest", "the biases", _of_each(_see_bias)),
    _pack_case("rest", "the dtypes of embedding, head and norm", _see_rest),
    _pack_case("guard", "whether its layers may be rearranged, on a processor that does so", _of_each(lambda layer: {"may be rearranged": bool(layer.support_avx512bf16_for_cpu)}), model=_on_any_processor),
)  # fmt: skip


# --- The census: mistakes ------------------------------------------------------------------------
@functools.cache
def _kept(kind: str) -> nn.Module:
    """A model to be copied."""
    model = copy.deepcopy(_model(tied="untied" not in kind))
    if "mixed" in kind:
        model.embed.float()
    if "4 bits" in kind:
        quantize_model_linears(model)
    if "adapter" in kind:  # as PEFT puts them into a layer
        for name, (d_in, d_out) in {"lora_A": (64, 3), "lora_B": (3, 128)}.items():
            matrix = nn.Linear(d_in, d_out, bias=False)
            model.block.add_module(name, nn.ModuleDict({"default": matrix}))
        model.block.lora_A.requires_grad_(False)
    return model


CLASSES = {nn.Linear: "linear", nn.Embedding: "embedding"}


def _count(
    model: nn.Module, numbers: Callable = weight_count, size: Callable = stored_bytes, twice: bool = False,
    classes: Mapping = CLASSES, exact: bool = False, adapter: Callable = lambda name, p: "lora_" in name,
    skip: Callable = lambda kind, p: False, dtype: Callable = lambda p: str(p.dtype).removeprefix("torch."),
    key: Callable = lambda kind, dtype: (kind, dtype), buffers: bool = False, by_module: bool = False,
) -> dict:  # fmt: skip
    """The census, unless it is told to count otherwise."""
    found: dict = {}
    named = list(model.named_parameters(remove_duplicate=not twice))
    if by_module:
        named = [(f"{m}.{n}", p) for m, part in model.named_modules() for n, p in part.named_parameters(recurse=False)]  # fmt: skip
    for name, p in named + (list(model.named_buffers()) if buffers else []):
        holder = model.get_submodule(name.rpartition(".")[0])
        fits = (lambda cls, m=holder: type(m) is cls) if exact else (lambda cls, m=holder: isinstance(m, cls))  # fmt: skip
        kind = next((told for cls, told in classes.items() if fits(cls)), "other")
        kind = "adapter" if adapter(name, p) else kind
        if not skip(kind, p):
            at = key(kind, dtype(p))
            before = found.get(at, (0, 0))
            found[at] = before[0] + numbers(p), before[1] + size(p)
    return found


def _counting(message: str, after: Callable[[dict], Any] = lambda found: found, **settings: Any) -> None:  # fmt: skip
    mistake(CENSUS, message)(lambda model: after(_count(model, **settings)))


def _bare(p: torch.Tensor) -> int:
    return p.numel() * p.element_size()


TWICE = "A tied weight counts twice: the output head of this model is its embedding. The rule: a tensor that two modules share counts once, for the first of them. named_parameters() gives each tensor once."  # fmt: skip
_counting(TWICE, twice=True)
_counting(TWICE, by_module=True)
_counting("A packed weight counts by its elements, each of which holds two weights. weight_count(p) counts all of them.", numbers=lambda p: p.numel())  # fmt: skip
_counting("The scales of packed weights are left out. They are kept beside the weight, in quant_state; stored_bytes(p) includes them.", size=_bare)  # fmt: skip
_counting("Packed weights count by their elements, and their scales are left out. weight_count(p) and stored_bytes(p) count both.", numbers=lambda p: p.numel(), size=_bare)  # fmt: skip
_counting("Every parameter counts with two bytes. Adapters, embeddings or norms may have four: ask each parameter.", size=lambda p: 2 * weight_count(p))  # fmt: skip
_counting("The adapters count as linear layers, because A and B are held by an nn.Linear. Look at the parameter's name first.", adapter=lambda name, p: False)  # fmt: skip
_counting("A parameter counts as adapter because it requires a gradient. The base before it is frozen does so, too: look at the name.", adapter=lambda name, p: p.requires_grad)  # fmt: skip
_counting("A frozen A counts as a linear layer. An adapter is one whether it is trained or not: look at the name alone.", adapter=lambda name, p: "lora_" in name and p.requires_grad)  # fmt: skip
_counting("Packed layers count as other. Linear4bit is a subclass of nn.Linear: isinstance() sees that.", exact=True)  # fmt: skip
_counting("Embeddings count as other. They have a kind of their own.", classes={nn.Linear: "linear"})  # fmt: skip
_counting("Norms and other parameters are left out. They are counted under other.", skip=lambda kind, p: kind == "other")  # fmt: skip
_counting("Frozen parameters are left out. They take memory as well.", skip=lambda kind, p: not p.requires_grad)  # fmt: skip
_counting("Packed weights are left out: they do not require a gradient, or no floating point dtype. They take memory as well.", skip=lambda kind, p: not p.is_floating_point())  # fmt: skip
_counting("Buffers count as well. They are no parameters.", buffers=True)
_counting("The dtype is torch's own object, or has torch. before it. The key holds its name alone, such as bfloat16.", dtype=lambda p: str(p.dtype))  # fmt: skip
_counting("The dtype is torch's own object, or has torch. before it. The key holds its name alone, such as bfloat16.", dtype=lambda p: p.dtype)  # fmt: skip
_counting("The key is the wrong way round: first the kind, then the dtype.", key=lambda kind, dtype: (dtype, kind))  # fmt: skip
_counting("The key is the kind alone. One kind may be stored in two dtypes: this is what a census shows.", key=lambda kind, dtype: kind)  # fmt: skip
_counting("The key is the dtype alone. It does not tell what takes the bytes.", key=lambda kind, dtype: dtype)  # fmt: skip
_counting("The pairs are the wrong way round: first the parameters, then the bytes.", after=lambda found: {k: v[::-1] for k, v in found.items()})  # fmt: skip
_counting("The values are bytes alone. A pair is asked for: parameters and bytes.", after=lambda found: {k: v[1] for k, v in found.items()})  # fmt: skip
_counting("The values are counts of parameters alone. A pair is asked for: parameters and bytes.", after=lambda found: {k: v[0] for k, v in found.items()})  # fmt: skip
_counting("The sizes are in megabytes. They are asked for in bytes.", size=lambda p: stored_bytes(p) / 1e6)  # fmt: skip


@mistake(CENSUS, "The last parameter of a kind overwrites those before it. Add to what the key holds.")  # fmt: skip
def _overwritten(model):
    found: dict = {}
    for _, p in model.named_parameters():
        found |= _count(model, skip=lambda kind, other, p=p: other is not p)
    return found


CENSUS_CASES = tuple(
    Case(f"`census(model)`, {described}", lambda kind=kind: (copy.deepcopy(_kept(kind)),), census, rule=rule)
    for rule, described, kind in (
        ("kinds", "a model in bfloat16", "untied"),
        ("dtype", "the same with its embedding in float32", "untied, mixed"),
        ("tied", "a model whose output head is its embedding", "tied"),
        ("packed", "the linear layers in 4 bits", "untied, 4 bits"),
        ("adapter", "adapters in a packed model", "4 bits, adapter"),
    )
)  # fmt: skip


def _draw_census(rng: random.Random, *_: object) -> tuple:
    sizes = [rng.randint(1, 30) for _ in range(8)]
    with torch.device("meta"):
        parts = [nn.Embedding(*sizes[:2]), nn.Linear(*sizes[2:4]), nn.LayerNorm(sizes[4]),
                 nn.Linear(*sizes[5:7], bias=False), nn.BatchNorm1d(sizes[7])]  # fmt: skip
    chosen = [
        part.to(rng.choice([torch.float32, torch.bfloat16]))
        for part in rng.sample(parts, rng.randint(1, 5))
    ]
    return (nn.Sequential(*chosen, chosen[0]),)


EXERCISES = {
    CENSUS: Exercise(
        CENSUS,
        "Count bytes by kind and dtype",
        census,
        CENSUS_CASES,
        asks="Return what a model's parameters take: a dictionary (kind, dtype) -> (parameters, bytes).\n\nFor example {("
        '"embedding", "bfloat16"): (786432, 1572864), …}; only keys that occur.',
        rules={
            "kinds": '"linear": held by an nn.Linear or a subclass, bias included; "embedding": by an nn.Embedding; all else is "other". Buffers do not count.',
            "adapter": 'A parameter with "lora_" in its name is of kind "adapter", trained or not.',
            "dtype": 'dtype: "float32", "bfloat16", "uint8", …; bytes in the tensor\'s own dtype.',
            "tied": "A tensor that two modules share counts once, for the first of them.",
            "packed": "A packed weight counts with all weights packed in it and with the bytes of its scales: weight_count(p) and stored_bytes(p).",
            "unchanged": "The model stays as it is.",
        },
        draw=_draw_census,
        hints=(
            "Which parameters are there, each once, and which module holds each of them?",
            ("kinds", "The name of a parameter without its last part is the name of its module: model.get_submodule(name)."),
            "The place to look is the order of the questions: the name first, then the class of the module.",
        ),
        path="Go through named_parameters(), which gives each tensor once. Cut the last part off the name to get the module that holds it. Decide the kind: the "
        "name first, because the matrices of an adapter are linear layers too; then the class. Add to the pair of this key. The usual wrong turn is to multiply numel() by two bytes.",
        why="The factor that is usually quoted, 3.9, describes one entry of this dictionary. A machine must hold the sum of all entries, and the dtypes show which part takes how much.",
        shows=[stored_bytes, weight_count],
    ),
    QUANTIZE: Exercise(
        QUANTIZE,
        "Pack the linear layers in 4 bits",
        quantize_model_linears,
        PACK_CASES,
        asks="Replace the linear layers of a model by bitsandbytes.nn.Linear4bit, in place, and return the model.",
        rules={
            "layers": "Every nn.Linear at any depth is replaced by a layer of the same size, except one called lm_head (the last part of its name). The given model itself is returned.",
            "weights": 'The new weight is the old one, packed and frozen: a Params4bit of quant_type "nf4" with double quantization (compress_statistics). '
            "bitsandbytes packs it when it is moved to a device with to().",
            "compute": "compute_dtype is the dtype that the old weight had.",
            "rest": "Biases, embeddings, norms and lm_head keep their numbers and dtypes; a layer without a bias has none. "
            "Whether biases are trained, and the mode of the new layers, are free.",
            "guard": "At the end, quantized_layers.keep_weights_in_place(model) is called: otherwise some processors rearrange the weights at the first answer.",
        },
        hints=(
            "Which layers are to be replaced, and what does a new layer take over from the old one?",
            ("weights", "Params4bit has double quantization by default, but the type fp4; compute_dtype is chosen by the input if you leave it out."),
            "The place to look is the weight: a new layer begins with numbers of its own. Collect the names before you replace the first layer.",
        ),
        path="Collect the plain linear layers and their names first. For each: make a Linear4bit of the same size, give it the old weight as a Params4bit and move that to the "
        "weight's device, hand the old bias on, and put the layer in. Protect the whole model last. The usual wrong turn is to leave a setting to its default.",
        why="The layers of bitsandbytes have the defaults fp4, double quantization, and products in the dtype of the input. BitsAndBytesConfig has fp4, no double quantization, and products in float32. The guard at the end costs speed on one kind of "
        "processor and keeps gradients right on all.",
        shows=[keep_weights_in_place],
    ),
}  # fmt: skip
