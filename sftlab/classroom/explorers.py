"""The explorers of the single notebooks: what can be moved there, and what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import torch

from sftlab.chat import encode, user
from sftlab.classroom import plots
from sftlab.classroom.explorer import explorer
from sftlab.classroom.views import View, beside, probability_view, table, token_view
from sftlab.compare import logits_of
from sftlab.errors import WorkbookError
from sftlab.generate import generate
from sftlab.masking import build_example

WIDE = widgets.Layout(width="95%")
DESCRIBED = {"description_width": "initial"}


def text_box(value: str, description: str, height: str | None = None):
    """A text field that reports when Enter is pressed or it is left, not at every key."""
    kind = widgets.Textarea if height else widgets.Text
    layout = widgets.Layout(width="95%", height=height) if height else WIDE
    return kind(
        value=value,
        description=description,
        layout=layout,
        style=DESCRIBED,
        continuous_update=False,
    )


@torch.no_grad()
def _written(model, tokenizer, prompt: list[int], label: str) -> View:
    """What a model writes after a prompt, each token shaded by its probability."""
    reply = generate(model, tokenizer, [prompt], max_new_tokens=40)[0]
    ids = [*reply.ids, *([tokenizer.eos_token_id] if reply.stopped else [])]
    chances = logits_of(model, [*prompt, *ids])[len(prompt) - 1 : -1].softmax(-1)
    return probability_view(
        tokenizer, ids, [chances[i, token].item() for i, token in enumerate(ids)], label
    )


def ask_both(base, chat, tokenizer, prompt: str) -> None:
    """Notebook 01: a free prompt, answered by both models side by side."""

    def draw(prompt: str, form: str) -> View:
        if not prompt.strip():
            raise WorkbookError("type something to ask")
        bare = tokenizer.encode(prompt)
        framed = encode(tokenizer, user(prompt), add_generation_prompt=True)
        return beside(
            _written(base, tokenizer, bare, "base, bare text"),
            _written(
                chat, tokenizer, framed if form == "in its template" else bare, f"chat, {form}"
            ),
        )

    controls = {
        "prompt": text_box(prompt, "Prompt (Enter to ask)"),
        "form": widgets.ToggleButtons(
            options=["in its template", "bare text"], description="chat reads it", style=DESCRIBED
        ),
    }
    explorer(controls, draw, lambda prompt, form: f"What both models write after {prompt!r}.")


def edit_probabilities(tokens: Sequence[str], probabilities: Sequence[float]) -> None:
    """Notebook 04: one slider per token; its term, the mean and the perplexity follow."""

    def draw(**chances: float):
        return plots.loss_terms(tokens, list(chances.values()))

    controls = {
        f"p{i}": widgets.FloatLogSlider(
            value=p, base=10, min=-7, max=0, step=0.05, readout_format=".3f", description=f"P({token.strip() or '⏎'})",
            style=DESCRIBED, layout=widgets.Layout(width="28em"),
        )
        for i, (token, p) in enumerate(zip(tokens, probabilities, strict=True))
    }  # fmt: skip
    explorer(
        controls,
        draw,
        "Bar chart of minus log p for each token, with the mean, which is the loss.",
        continuous=True,
    )


def mask_a_pair(tokenizer) -> None:
    """Notebook 12: type a pair, see which tokens are trained."""

    def draw(prompt: str, response: str) -> View:
        example = build_example(
            tokenizer, [*user(prompt), {"role": "assistant", "content": response}]
        )
        share = example.trained / len(example)
        return token_view(tokenizer, example, f"{share:.0%} of the row is trained")

    controls = {
        "prompt": text_box("List three tips for a job interview:", "Prompt", height="3.5em"),
        "response": text_box(
            "1. Arrive ten minutes early.\n2. Dress neatly and professionally.",
            "Response",
            height="4.5em",
        ),
    }
    explorer(
        controls,
        draw,
        lambda prompt, response: (
            f"The tokens of the pair {prompt!r} and {response!r}, masked and trained."
        ),
        continuous=True,
    )


def watch_training(
    losses: Sequence[float], album: Mapping[int, Sequence[str]], prompts: Sequence[str]
) -> None:
    """Notebook 13: a slider over the training steps; the answers and the loss at that step."""

    def draw(step: int) -> View:
        loss = f"loss {losses[step - 1]:.2f}" if step else "before training"
        return table(
            list(zip(prompts, album[step], strict=True)),
            ["asked", "written"],
            f"after {step} steps: {loss}",
        )

    slider = widgets.SelectionSlider(
        options=sorted(album), value=sorted(album)[0], description="after step", layout=WIDE
    )
    explorer(
        {"step": slider},
        draw,
        lambda step: f"Answers after {step} training steps.",
        continuous=True,
    )


def pick_a_model() -> None:
    """Notebook 00: the models that the workbook knows, and the line that chooses one."""
    from sftlab.models import FAMILIES

    def draw(name: str) -> View:
        family = FAMILIES[name]
        where = (
            "embedded: nothing to download"
            if family.embedded
            else f"fetched from the hub on first use: {family.base}"
        )
        rows = [["in each notebook's first cell", f'MODEL = "{name}"'], ["base", family.base], ["chat", family.chat],
                ["licence", family.licence], ["where it comes from", where]]  # fmt: skip
        return table(rows, ["", name])

    picker = widgets.Dropdown(options=list(FAMILIES), description="model")
    explorer(
        {"name": picker}, draw, lambda name: f"How to choose the model {name}.", continuous=True
    )
