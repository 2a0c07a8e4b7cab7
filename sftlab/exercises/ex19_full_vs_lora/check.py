"""The check of notebook 19: the peak of a training step from its parts."""

from __future__ import annotations

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.memory.plan import peak_training_bytes

ID = "19.peak_training_bytes"
MB = 1_000_000
# weights, gradients, optimizer, activations, logits, in_flight, largest: SmolLM2-135M's, in rough
# numbers, in runs that peak at another moment each; and a Gemma's, with its large vocabulary.
LORA = (548 * MB, 10 * MB, 20 * MB, 334 * MB, 25 * MB, 3 * MB, 1 * MB)
RECOMPUTED = (548 * MB, 10 * MB, 20 * MB, 43 * MB, 6 * MB, 91 * MB, 1 * MB)
FULL = (538 * MB, 538 * MB, 1076 * MB, 369 * MB, 25 * MB, 3 * MB, 113 * MB)
LARGE_VOCABULARY = (1072 * MB, 1072 * MB, 2144 * MB, 350 * MB, 134 * MB, 4 * MB, 671 * MB)


@mistake(ID, "That is the sum of the four parts. They are never all there at once: the activations go, layer by layer, while the gradients come. Take the largest of the three moments.")  # fmt: skip
def _four_parts(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return weights + gradients + optimizer + activations


@mistake(ID, "That is the sum of everything. Not all of it is there at once: take the largest of the three moments.")  # fmt: skip
def _everything(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return weights + gradients + optimizer + activations + logits + in_flight + largest


@mistake(ID, "You added the three moments up. They follow one another: only the largest of them counts.")  # fmt: skip
def _moments_added(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return (
        weights
        + optimizer
        + (activations + 2 * logits)
        + (activations - logits + in_flight)
        + (gradients + 2 * largest)
    )


@mistake(ID, "That is the *smallest* of the three moments. A run fails at its largest.")
def _smallest(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return (
        weights
        + optimizer
        + min(activations + 2 * logits, activations - logits + in_flight, gradients + 2 * largest)
    )


@mistake(ID, "AdamW's moments are missing. They stay from the first step on: the optimiser's state belongs to what is held all the time.")  # fmt: skip
def _no_optimizer(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return weights + max(
        activations + 2 * logits, activations - logits + in_flight, gradients + 2 * largest
    )


@mistake(ID, "The weights are missing. Frozen or not, they are held all the time.")
def _no_weights(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return optimizer + max(
        activations + 2 * logits, activations - logits + in_flight, gradients + 2 * largest
    )


@mistake(ID, "The gradients were counted as if they were there all the time. They are freed before the forward pass; only at the end all of them are there.")  # fmt: skip
def _gradients_always(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return (
        weights
        + gradients
        + optimizer
        + max(activations + 2 * logits, activations - logits + in_flight, gradients + 2 * largest)
    )


@mistake(ID, "The end of the step is missing: all gradients, and two arrays of the size of the largest trained matrix. In full fine-tuning this is the largest moment.")  # fmt: skip
def _no_end(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return weights + optimizer + max(activations + 2 * logits, activations - logits + in_flight)


@mistake(ID, "The moment in which the loss is differentiated is missing: all activations, and two more arrays of the size of the logits.")  # fmt: skip
def _no_loss(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return weights + optimizer + max(activations - logits + in_flight, gradients + 2 * largest)


@mistake(ID, "In the moment of the last layer something is missing, or all of it: the activations without the logits, *and* what is in flight. With recomputation it is the largest moment.")  # fmt: skip
def _no_last_layer(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return weights + optimizer + max(activations + 2 * logits, gradients + 2 * largest)


@mistake(ID, "While the loss is differentiated two arrays of the size of the logits come on top of the activations. With a large vocabulary they are no small thing.")  # fmt: skip
def _no_logits(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return (
        weights
        + optimizer
        + max(activations, activations - logits + in_flight, gradients + 2 * largest)
    )


@mistake(ID, "One array of the size of the logits was added to the activations; there are two: the gradients of log-probabilities and of logits.")  # fmt: skip
def _logits_once(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return (
        weights
        + optimizer
        + max(activations + logits, activations - logits + in_flight, gradients + 2 * largest)
    )


@mistake(ID, "Three arrays of the size of the logits were added. The log-probabilities themselves count among the activations already; two come on top.")  # fmt: skip
def _logits_thrice(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return (
        weights
        + optimizer
        + max(activations + 3 * logits, activations - logits + in_flight, gradients + 2 * largest)
    )


@mistake(ID, "When the last layer is differentiated the logits are gone: take them off the activations.")  # fmt: skip
def _logits_stay(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return (
        weights
        + optimizer
        + max(activations + 2 * logits, activations + in_flight, gradients + 2 * largest)
    )


@mistake(ID, "At the end two arrays of the size of the largest trained matrix are there besides the gradients.")  # fmt: skip
def _gradients_alone(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return (
        weights
        + optimizer
        + max(activations + 2 * logits, activations - logits + in_flight, gradients)
    )


@mistake(ID, "At the end there are *two* arrays of the size of the largest trained matrix; you added one.")  # fmt: skip
def _largest_once(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return (
        weights
        + optimizer
        + max(activations + 2 * logits, activations - logits + in_flight, gradients + largest)
    )


@mistake(ID, "At the end all gradients are there; they are missing from your third moment.")
def _no_gradients(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return (
        weights
        + optimizer
        + max(activations + 2 * logits, activations - logits + in_flight, 2 * largest)
    )


@mistake(ID, "That is the largest moment alone. Weights and the optimiser's state are there all the time: add them.")  # fmt: skip
def _moment_alone(weights, gradients, optimizer, activations, logits, in_flight, largest):
    return max(activations + 2 * logits, activations - logits + in_flight, gradients + 2 * largest)


def _case(describe: str, arguments: tuple) -> Case:
    return Case(describe, lambda: arguments, peak_training_bytes)


EXERCISES = {
    ID: Exercise(
        id=ID,
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
