"""The check of notebook 19: the peak of a training step from its parts."""

from __future__ import annotations

import random

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.memory.plan import peak_training_bytes

ID = "19.peak_training_bytes"

# Each mistake as a formula. The arguments, in order: weights, gradients, optimizer, activations,
# logits, in_flight, largest.
MISTAKES = (
    ("That is weights, gradients, optimizer and activations added up. They are never all held at once: the activations are freed before all gradients are there. Take the largest of the three moments.",
     lambda w, g, o, a, x, f, m: w + g + o + a),
    ("That is the sum of all seven arguments. They are never all held at once: take the largest of the three moments.",
     lambda w, g, o, a, x, f, m: w + g + o + a + x + f + m),
    ("The three moments are added. They follow one another, so only the largest of them counts.",
     lambda w, g, o, a, x, f, m: w + o + (a + 2 * x) + (a - x + f) + (g + 2 * m)),
    ("That is the smallest of the three moments. A run fails at its largest one.",
     lambda w, g, o, a, x, f, m: w + o + min(a + 2 * x, a - x + f, g + 2 * m)),
    ("That is moment 1, the backward pass of the loss. Moments 2 and 3 can be larger.",
     lambda w, g, o, a, x, f, m: w + o + a + 2 * x),
    ("That is moment 3, the end of the step. Moments 1 and 2 can be larger.",
     lambda w, g, o, a, x, f, m: w + o + g + 2 * m),
    ("The optimizer's state is missing. It is held from the first step on, at every moment.",
     lambda w, g, o, a, x, f, m: w + max(a + 2 * x, a - x + f, g + 2 * m)),
    ("The optimizer's state is counted at the end only. It is held at every moment.",
     lambda w, g, o, a, x, f, m: w + max(a + 2 * x, a - x + f, g + o + 2 * m)),
    ("The weights are missing. Frozen or not, they are held at every moment.",
     lambda w, g, o, a, x, f, m: o + max(a + 2 * x, a - x + f, g + 2 * m)),
    ("Weights and optimizer are missing. They are held at every moment: add them to the largest one.",
     lambda w, g, o, a, x, f, m: max(a + 2 * x, a - x + f, g + 2 * m)),
    ("The gradients are counted at every moment. All of them are held at the end only.",
     lambda w, g, o, a, x, f, m: w + g + o + max(a + 2 * x, a - x + f, g + 2 * m)),
    ("The gradients are counted at every moment. All of them are held at the end only.",
     lambda w, g, o, a, x, f, m: w + g + o + max(a + 2 * x, a - x + f, 2 * m)),
    ("That is the number of the largest moment. Return the bytes that are held at it.",
     lambda w, g, o, a, x, f, m: 1 + max(range(3), key=(a + 2 * x, a - x + f, g + 2 * m).__getitem__)),
    ("That is the number of the largest moment. Return the bytes that are held at it.",
     lambda w, g, o, a, x, f, m: max(range(3), key=(a + 2 * x, a - x + f, g + 2 * m).__getitem__)),
    ("In the backward pass of the last layer, the gradients are added. All of them are held at the end only.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a - x + f + g, g + 2 * m)),
    ("In the backward pass of the last layer, in_flight is added twice. It holds all that this moment needs.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a - x + 2 * f, g + 2 * m)),
    ("The end of the step is left out. In full fine-tuning it is often the largest moment.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a - x + f)),
    ("The backward pass of the loss (moment 1) is left out.",
     lambda w, g, o, a, x, f, m: w + o + max(a - x + f, g + 2 * m)),
    ("in_flight never counts. It belongs to the backward pass of the last layer, which can be the largest moment when activations are recomputed.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, g + 2 * m)),
    ("In the backward pass of the last layer, the activations are missing. Only the logits among them are freed by then.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, f, g + 2 * m)),
    ("In the backward pass of the loss, the two arrays of the size of the logits are missing.",
     lambda w, g, o, a, x, f, m: w + o + max(a, a - x + f, g + 2 * m)),
    ("In the backward pass of the loss, one array of the size of the logits is added to the activations. There are two.",
     lambda w, g, o, a, x, f, m: w + o + max(a + x, a - x + f, g + 2 * m)),
    ("In the backward pass of the loss, three arrays of the size of the logits are added. The logits themselves are part of the activations; two more come.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 3 * x, a - x + f, g + 2 * m)),
    ("In the backward pass of the last layer, the logits are still counted. They are part of the activations and are freed by then.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a + f, g + 2 * m)),
    ("In the backward pass of the last layer, the logits are added. They are freed by then: subtract them.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a + x + f, g + 2 * m)),
    ("in_flight is counted at the loss as well. It belongs to the backward pass of the last layer.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x + f, a - x + f, g + 2 * m)),
    ("At the end, the two arrays of the size `largest` are missing.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a - x + f, g)),
    ("At the end, one array of the size `largest` is added. There are two.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a - x + f, g + m)),
    ("At the end, the gradients are missing.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a - x + f, 2 * m)),
    ("The activations are counted at the end as well. They are freed by then.",
     lambda w, g, o, a, x, f, m: w + o + max(a + 2 * x, a - x + f, a + g + 2 * m)),
)  # fmt: skip
for _message, _formula in MISTAKES:
    _formula.__name__ = f"formula: {_message[:60]}"
    mistake(ID, _message)(_formula)

NAMES = ("weights", "gradients", "optimizer", "activations", "logits", "in_flight", "largest")


def _case(rule: str, remark: str, **parts: int) -> Case:
    given = {"weights": 101, "gradients": 7, "optimizer": 23, "activations": 59, "logits": 17,
             "in_flight": 5, "largest": 2} | parts  # fmt: skip
    told = ", ".join(f"{name}={size}" for name, size in given.items())
    return Case(
        f"`peak_training_bytes({told})`: {remark}",
        lambda: tuple(given[name] for name in NAMES),
        peak_training_bytes,
        rule=rule,
    )


CASES = (
    _case("held", "weights and optimizer alone", gradients=0, activations=0, logits=0, in_flight=0, largest=0),
    _case("loss", "moment 1 is the largest"),
    _case("layer", "much in flight, so moment 2 is the largest", in_flight=151),
    _case("end", "large gradients, so moment 3 is the largest", gradients=97, largest=31),
    _case("end", "a large trained matrix, so moment 3 is the largest", largest=53),
    _case("peak", "large gradients, and still moment 1 is the largest", gradients=71),
    _case("peak", "the three moments differ little", gradients=79, in_flight=47, largest=6),
)  # fmt: skip


def _draw(rng: random.Random, *_: int) -> tuple[int, ...]:
    weights, gradients, optimizer, rest, logits, in_flight = (
        rng.randrange(10**6) for _ in range(6)
    )
    return (
        weights,
        gradients,
        optimizer,
        rest + logits,
        logits,
        in_flight,
        rng.randrange(gradients + 1),
    )


EXERCISES = {
    ID: Exercise(
        ID,
        "The peak of a step from its parts",
        peak_training_bytes,
        CASES,
        asks="Return the largest number of bytes that a training step holds at one moment.\n\n"
        "All arguments are sizes in bytes; weights include the adapters, optimizer is its state.",
        rules={
            "held": "weights and optimizer are held at every moment, gradients only at the end.",
            "peak": "Three moments follow one another. The result is the total of the largest one.",
            "loss": "Moment 1, backward pass of the loss: all activations (the logits are part of them), plus two more arrays of the size logits.",
            "layer": "Moment 2, backward pass of the last layer: the activations without the logits, plus in_flight.",
            "end": "Moment 3, end of the step: no activations; all gradients, plus two arrays of the size largest (of the largest trained matrix).",
        },
        draw=_draw,
        hints=(
            "Two of the seven sizes are held from the first moment to the last. Which?",
            ("layer", "Write all three moments as sums before you compare them."),
            "The place to look is what the three sums have in common: it can be added once, after the comparison.",
        ),
        path="Notice first what does not change: weights and optimizer state. Then write one sum for each moment, in the order of time, and "
        "leave out what is freed by then. Compare last. The usual wrong turn is to add up all parts: the activations are freed layer by layer "
        "while the gradients arrive, so they are never all held at once.",
        why="A run fails at its largest moment. That moment decides whether it fits, and saving memory at another one does not help. LoRA shrinks the third moment to a few "
        "megabytes and leaves the first two nearly as they are. Recomputation shrinks the first two and leaves the third. `sftlab.memory.plan.plan` computes the seven "
        "sizes from shapes alone and calls this function.",
        points=2,
    )
}  # fmt: skip
