"""Watch what an answer may not change: its arguments, models, tokenizers and optimizers.

Cases may share a model or a tokenizer, which takes time to load. A change is therefore undone, so
that the next answer is not checked against a changed one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from sftlab.classroom.first_difference import difference, is_tensor, shorten, tensors_in


def watch(
    arguments: Sequence[Any], names: Sequence[str], allowed: Sequence[int] = ()
) -> Callable[[], str | None]:
    """Remember the arguments of a call; return a function that undoes changes and names the first.

    Args:
        names: of the parameters.
        allowed: positions of arguments that the exercise asks to change.
    """
    watched = [
        (number, look)
        for number, argument in enumerate(arguments)
        if number not in allowed and (look := look_at(argument))
    ]

    def changed() -> str | None:
        found = [(number, text) for number, look in watched if (text := look())]
        if not found:
            return None
        number, text = found[0]
        return f"It changes its own input (argument {number + 1}, `{names[number]}`): {text}"

    return changed


def look_at(value: Any) -> Callable[[], str | None] | None:
    """Return a function that says what has changed in the value since now; None if nothing can."""
    if hasattr(value, "named_parameters") and hasattr(value, "training"):
        return _model(value)
    if hasattr(value, "chat_template") and hasattr(value, "vocab_size"):
        return _tokenizer(value)
    if hasattr(value, "param_groups"):
        return _optimizer(value)
    if is_tensor(value) or isinstance(value, (list, tuple, dict)):
        return _data(value)
    return None


def _data(value: Any) -> Callable[[], str | None]:
    before, grown = _copied(value), [t.requires_grad for t in tensors_in(value)]

    def look() -> str | None:
        changed = difference(value, before, strict=("dtype",))
        if changed is None:
            if [t.requires_grad for t in tensors_in(value)] == grown:
                return None
            return "`requires_grad` is no longer what it was."
        was, became = shorten(before, 80), shorten(value, 80)
        seen = f"it was `{was}` and became `{became}`." if was != became else changed
        return f"{seen} Whoever called it would find the data altered. Work on a copy."

    return look


def _copied(value: Any) -> Any:
    if is_tensor(value):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_copied(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    return value


def _model(model: Any) -> Callable[[], str | None]:
    import torch

    def tensors() -> dict[str, Any]:
        named = [*model.named_parameters(remove_duplicate=False)]
        return dict([*named, *model.named_buffers(remove_duplicate=False)])

    def layers() -> list[tuple]:
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
        return [
            (name, type(layer), tuple(len(getattr(layer, hook)) for hook in hooks))
            for name, layer in model.named_modules()
        ]

    kept, built = tensors(), layers()
    values = {name: tensor.detach().clone() for name, tensor in kept.items()}
    trained = {name: tensor.requires_grad for name, tensor in kept.items()}
    graded = {name: tensor.grad is not None for name, tensor in kept.items()}
    modes = {layer: layer.training for layer in model.modules()}

    def look() -> str | None:
        found = tensors()
        if layers() != built or set(found) != set(kept):
            return "the layers of the model, or their hooks, are no longer the same."
        said = None
        with torch.no_grad():
            for name, tensor in found.items():
                if tensor.requires_grad != trained[name]:
                    tensor.requires_grad_(trained[name])
                    said = said or f"`{name}` has another `requires_grad`."
                if (tensor.grad is not None) != graded[name]:
                    tensor.grad = None
                    said = (
                        said or f"the gradient of `{name}` is {'gone' if graded[name] else 'left'}."
                    )
                if what := _difference(tensor, values[name]):
                    tensor.data = values[name].clone()
                    said = said or f"the weight `{name}` has {what}."
        if any(layer.training != mode for layer, mode in modes.items()):
            for layer, mode in modes.items():
                layer.training = mode
            said = said or "the model is in another mode (`train()` or `eval()`)."
        return said and f"{said} Leave the model as it is."

    return look


def _difference(tensor: Any, before: Any) -> str | None:
    """Return in what a weight differs from its copy; on the meta device there are no values."""
    import torch

    if tensor.dtype != before.dtype:
        return "another dtype"
    if tensor.shape != before.shape:
        return "another shape"
    same = tensor.device.type == "meta" or torch.equal(tensor, before)
    return None if same else "other values"


_SETTINGS = ("chat_template", "padding_side", "truncation_side", "pad_token", "eos_token",
             "bos_token", "split_special_tokens", "model_max_length", "add_bos_token", "add_eos_token")  # fmt: skip


def _tokenizer(tokenizer: Any) -> Callable[[], str | None]:
    settings = {name: getattr(tokenizer, name, None) for name in _SETTINGS}
    own, size = dict(vars(tokenizer)), len(tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = backend and (backend.truncation, backend.padding)

    def look() -> str | None:
        said = None
        for name, before in settings.items():
            if getattr(tokenizer, name, None) != before:
                setattr(tokenizer, name, before)
                said = said or f"the tokenizer's `{name}`. Leave the tokenizer as it is."
        for name in set(vars(tokenizer)) - set(own):  # `tokenizer.encode = …`
            if callable(vars(tokenizer)[name]):
                delattr(tokenizer, name)
                said = said or f"the tokenizer's `{name}`. Leave the tokenizer as it is."
        if backend and (backend.truncation, backend.padding) != state:
            # A call with truncation=True leaves it on; that is no fault of the answer.
            backend.enable_truncation(**state[0]) if state[0] else backend.no_truncation()
            backend.enable_padding(**state[1]) if state[1] else backend.no_padding()
        if len(tokenizer) != size:
            said = "the tokenizer has other tokens than before. Leave the tokenizer as it is."
        return said

    return look


def _optimizer(optimizer: Any) -> Callable[[], str | None]:
    def state() -> Any:
        return _copied(optimizer.state_dict())

    before, kept = state(), copy.copy(optimizer.param_groups)

    def look() -> str | None:
        after = state()
        same = difference(after, before) is None and len(kept) == len(optimizer.param_groups)
        return None if same else "the optimizer's settings or state. Leave the optimizer as it is."

    return look
