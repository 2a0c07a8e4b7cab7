"""The shapes of real models: a table of configurations, built without weights.

    model = build("llama-3-70b")     # on the meta device: 70.55 billion parameters, no memory

The numbers are from each model's published ``config.json``, at ``source`` on the hub. The first
Qwen models have an architecture of their own, with the same weights as qwen2.
``parameters`` is the published total from the index or header of the weight files.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from sftlab.errors import WorkbookError

CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}


@dataclass(frozen=True)
class Shape:
    """The settings that determine the size of every weight of a decoder-only transformer."""

    family: str  # a key of CONFIGS
    hidden: int
    layers: int
    heads: int
    kv_heads: int  # fewer than heads: grouped-query attention
    head: int  # width of one head
    mlp: int  # intermediate width of the MLP
    vocabulary: int
    tied: bool  # whether the output head shares the embedding weight
    parameters: int  # published number; a tied weight counts once
    source: str  # repository on the hub


# fmt: off
SHAPES: dict[str, Shape] = {
    #                       family   hidden lay. heads kv head    mlp   vocab.   tied      parameters
    "smollm2-135m":  Shape("llama",    576, 30,   9,  3,  64,  1536,  49152, True,     134_515_008, "HuggingFaceTB/SmolLM2-135M"),
    "smollm2-360m":  Shape("llama",    960, 32,  15,  5,  64,  2560,  49152, True,     361_821_120, "HuggingFaceTB/SmolLM2-360M"),
    "qwen2.5-0.5b":  Shape("qwen2",    896, 24,  14,  2,  64,  4864, 151936, True,     494_032_768, "Qwen/Qwen2.5-0.5B"),
    "qwen3-0.6b":    Shape("qwen3",   1024, 28,  16,  8, 128,  3072, 151936, True,     596_049_920, "Qwen/Qwen3-0.6B"),
    "qwen-1.8b":     Shape("qwen2",   2048, 24,  16, 16, 128,  5504, 151936, False,  1_836_828_672, "Qwen/Qwen-1_8B"),
    "qwen-7b":       Shape("qwen2",   4096, 32,  32, 32, 128, 11008, 151936, False,  7_721_324_544, "Qwen/Qwen-7B"),
    "qwen-14b":      Shape("qwen2",   5120, 40,  40, 40, 128, 13696, 152064, False, 14_167_290_880, "Qwen/Qwen-14B"),
    "qwen-72b":      Shape("qwen2",   8192, 80,  64, 64, 128, 24576, 152064, False, 72_287_920_128, "Qwen/Qwen-72B"),
    "llama-3.2-1b":  Shape("llama",   2048, 16,  32,  8,  64,  8192, 128256, True,   1_235_814_400, "meta-llama/Llama-3.2-1B"),
    "llama-2-7b":    Shape("llama",   4096, 32,  32, 32, 128, 11008,  32000, False,  6_738_415_616, "meta-llama/Llama-2-7b-hf"),
    "qwen2.5-7b":    Shape("qwen2",   3584, 28,  28,  4, 128, 18944, 152064, False,  7_615_616_512, "Qwen/Qwen2.5-7B"),
    "llama-3-8b":    Shape("llama",   4096, 32,  32,  8, 128, 14336, 128256, False,  8_030_261_248, "meta-llama/Meta-Llama-3-8B"),
    "llama-2-13b":   Shape("llama",   5120, 40,  40, 40, 128, 13824,  32000, False, 13_015_864_320, "meta-llama/Llama-2-13b-hf"),
    "llama-3-70b":   Shape("llama",   8192, 80,  64,  8, 128, 28672, 128256, False, 70_553_706_496, "meta-llama/Meta-Llama-3-70B"),
}
# fmt: on


def config(name: str) -> PretrainedConfig:
    """Return the transformers configuration of a shape.

    Raises:
        WorkbookError: unknown shape; the message lists similar names.
    """
    if name not in SHAPES:
        near = get_close_matches(str(name).lower(), SHAPES, n=3, cutoff=0.4) or SHAPES
        raise WorkbookError(f"there is no shape {name!r}; the nearest are {', '.join(near)}")
    shape = SHAPES[name]
    return CONFIGS[shape.family](
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head,
        intermediate_size=shape.mlp,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
    )


def build(name: str, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """Return the whole model on the meta device: all shapes and dtypes, but no data.

    Raises:
        WorkbookError: unknown shape.
    """
    chosen = config(name)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(chosen, dtype=dtype)


def linear_layers(model: nn.Module, head: bool = False) -> dict[str, tuple[int, int]]:
    """Return (d_in, d_out) of each linear layer by name.

    The numbers are the widths that the layer computes with, so they are also correct for 4-bit
    layers, which pack two weights per byte.

    Args:
        head: whether to include the output head ("lm_head").
    """
    return {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (head or name.split(".")[-1] != "lm_head")
    }
