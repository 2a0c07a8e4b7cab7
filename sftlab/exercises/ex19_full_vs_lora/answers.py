"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

from itertools import accumulate

import torch

from sftlab.classroom.answers import equivalent, refused, right

ID = "19.peak_training_bytes"


@right(ID)
def three_sums(weights, gradients, optimizer, activations, logits, in_flight, largest):
    held = weights + optimizer
    return held + max(
        activations + 2 * logits, activations - logits + in_flight, gradients + 2 * largest
    )


@right(ID)
def over_a_list(weights, gradients, optimizer, activations, logits, in_flight, largest):
    moments = [activations + logits * 2, activations + in_flight - logits, gradients + largest * 2]
    return sorted(weights + optimizer + moment for moment in moments)[-1]


@right(ID)
def step_by_step(weights, gradients, optimizer, activations, logits, in_flight, largest):
    peak = now = weights + optimizer + activations  # after the forward pass
    peak = max(peak, now + 2 * logits)
    now -= logits
    peak = max(peak, now + in_flight)
    now = weights + optimizer + gradients
    return max(peak, now + largest + largest)


@right(ID)
def by_differences(weights, gradients, optimizer, activations, logits, in_flight, largest):
    rest = activations - logits
    changes = (weights, optimizer, activations, logits, logits)  # up to the loss
    changes += (-3 * logits, in_flight, -in_flight, gradients, -rest, largest, largest)
    last_of_moment = (4, 6, 11)
    levels = list(accumulate(changes))
    return max(levels[place] for place in last_of_moment)


@right(ID)
def by_a_matrix(*parts):
    moments = torch.tensor([[1, 0, 1, 1, 2, 0, 0], [1, 0, 1, 1, -1, 1, 0], [1, 1, 1, 0, 0, 0, 2]])
    return (moments @ torch.tensor(parts)).amax().item()


@right(ID)
def by_cases(weights, gradients, optimizer, activations, logits, in_flight, largest):
    backward = 2 * logits if 3 * logits >= in_flight else in_flight - logits
    end = gradients + 2 * largest
    return weights + optimizer + (end if end > activations + backward else activations + backward)


@right(ID)
def a_tensor(*parts):
    return torch.tensor(by_a_matrix(*parts))


@right(ID)
def whole_float(weights, gradients, optimizer, activations, logits, in_flight, largest):
    backward = max(2.0 * logits, in_flight - logits) + activations
    return float(weights) + optimizer + max(backward, gradients + 2 * largest)


@refused(ID, "The result is the total of the largest one")
def by_the_larger_part(weights, gradients, optimizer, activations, logits, in_flight, largest):
    end = gradients + 2 * largest
    backward = activations + max(2 * logits, in_flight - logits)
    return weights + optimizer + (end if gradients + largest > activations else backward)


@refused(ID, "Expected: `124`, got: `125`")
def adapters_counted(weights, *parts):
    return three_sums(weights + 1, *parts)


@refused(ID, "of type `str`")
def in_words(*parts):
    return f"{three_sums(*parts) / 1e6:.0f} MB"


@refused(ID, "It prints, but it returns nothing")
def printed(*parts):
    print(three_sums(*parts))


equivalent(
    ID,
    "The largest of three sums does not depend on their order.",
    "`max(loss, last_layer, end)` becomes `max(last_layer, loss, end)`",
)
