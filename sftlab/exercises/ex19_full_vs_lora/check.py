"""The check of notebook 19: the peak of a training step from its parts."""

from __future__ import annotations

from sftlab.classroom.checking import Case, Exercise
from sftlab.memory.plan import peak_training_bytes

MB = 1_000_000
# weights, gradients, optimizer, activations, logits, in_flight, largest: SmolLM2-135M's, in rough
# numbers, in runs that peak at another moment each; and a Gemma's, with its large vocabulary.
LORA = (548 * MB, 10 * MB, 20 * MB, 334 * MB, 25 * MB, 3 * MB, 1 * MB)
RECOMPUTED = (548 * MB, 10 * MB, 20 * MB, 43 * MB, 6 * MB, 91 * MB, 1 * MB)
FULL = (538 * MB, 538 * MB, 1076 * MB, 369 * MB, 25 * MB, 3 * MB, 113 * MB)
LARGE_VOCABULARY = (1072 * MB, 1072 * MB, 2144 * MB, 350 * MB, 134 * MB, 4 * MB, 671 * MB)


def _slip(loss, last_layer, end, over=max, held=lambda w, g, o: w + o):
    """The answer with some of its terms changed; None stands for a moment that was left out."""

    def wrong(weights, gradients, optimizer, activations, logits, in_flight, largest):
        moments = [
            loss and loss(activations, logits),
            last_layer and last_layer(activations, logits, in_flight),
            end and end(gradients, largest),
        ]
        found = [moment for moment in moments if moment is not None]
        return held(weights, gradients, optimizer) + over(found)

    return wrong


def _loss(a, z):
    return a + 2 * z


def _last(a, z, f):
    return a - z + f


def _end(g, m):
    return g + 2 * m


def _everything(w, g, o, a, z, f, m):
    return w + g + o + a + z + f + m


def _four_parts(w, g, o, a, *_):
    return w + g + o + a


MISTAKES = (
    (_four_parts, "That is the sum of the four parts. They are never all there at once: the activations go, layer by layer, while the gradients come. Take the largest of the three moments."),
    (_everything, "That is the sum of everything. Not all of it is there at once: take the largest of the three moments."),
    (_slip(_loss, _last, _end, sum), "You added the three moments up. They follow one another: only the largest of them counts."),
    (_slip(_loss, _last, _end, min), "That is the *smallest* of the three moments. A run fails at its largest."),
    (_slip(_loss, _last, _end, held=lambda w, g, o: w), "AdamW's moments are missing. They stay from the first step on: the optimiser's state belongs to what is held all the time."),
    (_slip(_loss, _last, _end, held=lambda w, g, o: o), "The weights are missing. Frozen or not, they are held all the time."),
    (_slip(_loss, _last, _end, held=lambda w, g, o: w + g + o), "The gradients were counted as if they were there all the time. They are freed before the forward pass; only at the end all of them are there."),
    (_slip(_loss, _last, None), "The end of the step is missing: all gradients, and two arrays of the size of the largest trained matrix. In full fine-tuning this is the largest moment."),
    (_slip(None, _last, _end), "The moment in which the loss is differentiated is missing: all activations, and two more arrays of the size of the logits."),
    (_slip(_loss, None, _end), "In the moment of the last layer something is missing, or all of it: the activations without the logits, *and* what is in flight. With recomputation it is the largest moment."),
    (_slip(lambda a, z: a, _last, _end), "While the loss is differentiated two arrays of the size of the logits come on top of the activations. With a large vocabulary they are no small thing."),
    (_slip(lambda a, z: a + z, _last, _end), "One array of the size of the logits was added to the activations; there are two: the gradients of log-probabilities and of logits."),
    (_slip(lambda a, z: a + 3 * z, _last, _end), "Three arrays of the size of the logits were added. The log-probabilities themselves count among the activations already; two come on top."),
    (_slip(_loss, lambda a, z, f: a + f, _end), "When the last layer is differentiated the logits are gone: take them off the activations."),
    (_slip(_loss, _last, lambda g, m: g), "At the end two arrays of the size of the largest trained matrix are there besides the gradients."),
    (_slip(_loss, _last, lambda g, m: g + m), "At the end there are *two* arrays of the size of the largest trained matrix; you added one."),
    (_slip(_loss, _last, lambda g, m: 2 * m), "At the end all gradients are there; they are missing from your third moment."),
    (_slip(_loss, _last, lambda g, m: g + 2 * m, held=lambda w, g, o: 0), "That is the largest moment alone. Weights and the optimiser's state are there all the time: add them."),
)  # fmt: skip


def _case(describe: str, arguments: tuple) -> Case:
    return Case(describe, lambda: arguments, peak_training_bytes, MISTAKES)


EXERCISES = {
    "19.peak_training_bytes": Exercise(
        id="19.peak_training_bytes",
        title="The peak of a step from its parts",
        reference=peak_training_bytes,
        cases=[
            _case("LoRA on SmolLM2-135M, in rounded numbers", LORA),
            _case("full fine-tuning of it", FULL),
            _case("LoRA with recomputation", RECOMPUTED),
            _case("full fine-tuning with an embedding that is most of the model", LARGE_VOCABULARY),
        ],
        hints=[
            "Two of the seven are there from the first moment to the last: the weights and the optimiser's state.",
            "Write the three moments as three sums, one a line. Each begins with what is large then: activations, activations, gradients.",
            "The result is  weights + optimizer + max(loss, last_layer, end).",
        ],
        why="A run fails at its largest moment, so that one decides whether it fits, and saving anything else saves nothing. LoRA shrinks the third moment to a few megabytes and leaves the "
        "first two nearly as they are. Recomputation shrinks the first two and leaves the third. `sftlab.memory.plan.plan` finds the seven numbers from shapes alone and calls this function.",
        points=2,
    )
}  # fmt: skip
