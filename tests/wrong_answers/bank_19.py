"""Answers to the check of notebook 19, as students write them."""


def usual(weights, gradients, optimizer, activations, logits, in_flight, largest):
    held = weights + optimizer
    return held + max(
        activations + 2 * logits, activations - logits + in_flight, gradients + 2 * largest
    )


def over_a_list(weights, gradients, optimizer, activations, logits, in_flight, largest):
    moments = [activations + logits * 2, activations + in_flight - logits, gradients + largest * 2]
    return sorted(weights + optimizer + moment for moment in moments)[-1]


def step_by_step(weights, gradients, optimizer, activations, logits, in_flight, largest):
    peak = now = weights + optimizer + activations  # after the forward pass
    peak = max(peak, now + 2 * logits)
    now -= logits
    peak = max(peak, now + in_flight)
    now = weights + optimizer + gradients
    return max(peak, now + largest + largest)


# --- wrong -----------------------------------------------------------------------------------


def four_parts(w, g, o, a, z, f, m):
    return sum((w, g, o, a))


def everything(*parts):
    return sum(parts)


def moments_added(w, g, o, a, z, f, m):
    return w + o + (a + 2 * z) + (a - z + f) + (g + 2 * m)


def smallest(w, g, o, a, z, f, m):
    return w + o + min(a + 2 * z, a - z + f, g + 2 * m)


def no_optimizer(w, g, o, a, z, f, m):
    return w + max(a + 2 * z, a - z + f, g + 2 * m)


def no_weights(w, g, o, a, z, f, m):
    return o + max(a + 2 * z, a - z + f, g + 2 * m)


def gradients_always(w, g, o, a, z, f, m):
    return w + o + g + max(a + 2 * z, a - z + f, g + 2 * m)


def no_end(w, g, o, a, z, f, m):
    return w + o + max(a + 2 * z, a - z + f)


def no_loss(w, g, o, a, z, f, m):
    return w + o + max(a - z + f, g + 2 * m)


def no_last_layer(w, g, o, a, z, f, m):
    return w + o + max(a + 2 * z, g + 2 * m)


def no_logits(w, g, o, a, z, f, m):
    return w + o + max(a, a - z + f, g + 2 * m)


def logits_once(w, g, o, a, z, f, m):
    return w + o + max(a + z, a - z + f, g + 2 * m)


def logits_thrice(w, g, o, a, z, f, m):
    return w + o + max(a + 3 * z, a - z + f, g + 2 * m)


def logits_stay(w, g, o, a, z, f, m):
    return w + o + max(a + 2 * z, a + f, g + 2 * m)


def gradients_alone_at_the_end(w, g, o, a, z, f, m):
    return w + o + max(a + 2 * z, a - z + f, g)


def largest_once(w, g, o, a, z, f, m):
    return w + o + max(a + 2 * z, a - z + f, g + m)


def no_gradients(w, g, o, a, z, f, m):
    return w + o + max(a + 2 * z, a - z + f, 2 * m)


def nothing_in_flight(w, g, o, a, z, f, m):
    return w + o + max(a + 2 * z, a - z, g + 2 * m)


def moment_alone(w, g, o, a, z, f, m):
    return max(a + 2 * z, a - z + f, g + 2 * m)


RIGHT = {
    "19.peak_training_bytes": {
        "usual": usual,
        "over a list": over_a_list,
        "step by step": step_by_step,
    }
}

WRONG = {
    "19.peak_training_bytes": {
        "the four parts added": (four_parts, "sum of the four parts"),
        "everything added": (everything, "sum of everything"),
        "moments added": (moments_added, "added the three moments"),
        "the smallest moment": (smallest, "*smallest*"),
        "no optimiser": (no_optimizer, "AdamW's moments are missing"),
        "no weights": (no_weights, "The weights are missing"),
        "gradients all the time": (gradients_always, "freed before the forward pass"),
        "no end": (no_end, "The end of the step is missing"),
        "no loss": (no_loss, "loss is differentiated is missing"),
        "no last layer": (no_last_layer, "moment of the last layer something is missing"),
        "no logits": (no_logits, "two arrays of the size of the logits come on top"),
        "logits once": (logits_once, "there are two: the gradients"),
        "logits three times": (logits_thrice, "count among the activations already"),
        "logits stay": (logits_stay, "take them off"),
        "nothing in flight": (nothing_in_flight, "moment of the last layer something is missing"),
        "gradients alone": (gradients_alone_at_the_end, "besides the gradients"),
        "largest once": (largest_once, "you added one"),
        "no gradients at the end": (no_gradients, "missing from your third moment"),
        "moment alone": (moment_alone, "largest moment alone"),
    }
}
