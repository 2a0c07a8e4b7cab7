"""Where the time of a step goes: the share of its products, and of what comes between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from torch.profiler import profile

ADAPTERS = "adapters' products"
GROUPS = {  # the beginning of an operation's name -> what it is told as; others are "the rest"
    "aten::mm": "products",
    "aten::addmm": "products",
    "aten::bmm": "attention",
    "aten::_softmax": "attention",
    "aten::_scaled_dot_product": "attention",
    "aten::copy_": "casts and copies",
    "aten::fill_": "casts and copies",
    "aten::_fused_adamw_": "optimiser",
    "aten::linalg_vector_norm": "optimiser",
}
REST = "the rest"


def shares(step: Callable[[], object], r: int) -> dict:
    """What each group of operations takes of a step's time, and how many operations there are.

    The profiler itself takes time with each operation, so the share of small ones is somewhat too
    high. A product with a side of ``r`` belongs to an adapter.
    """
    with profile(record_shapes=True) as seen:
        step()
    seconds: Counter[str] = Counter()
    count = 0
    for event in seen.key_averages(group_by_input_shape=True):
        seconds[group(event.key, event.input_shapes, r)] += event.self_cpu_time_total
        count += event.count * event.key.startswith("aten::")
    whole = seconds.total()
    return {"shares": {k: v / whole for k, v in seconds.most_common()}, "operations": count}


def group(name: str, shapes: Sequence[Sequence[int]], r: int) -> str:
    """The group of an operation."""
    found = next((group for start, group in GROUPS.items() if name.startswith(start)), REST)
    is_adapter = found == "products" and any(r in shape for shape in shapes)
    return ADAPTERS if is_adapter else found
