"""Answers to the checks of notebook 20, as students write them."""

import torch


def with_factor(factor, sign=1):
    return lambda W, A, B, alpha, r: (W + sign * factor(alpha, r) * (B @ A)).to(W.dtype)


def in_float64(sign):
    def way(W, A, B, alpha, r):
        update = alpha * torch.einsum("or,ri->oi", B.double(), A.double()) / r
        return (W.double() + sign * update).to(W.dtype)

    return way


def rank_by_rank(sign):
    def way(W, A, B, alpha, r):
        total = W.float().clone()
        for k in range(r):
            total += sign * (alpha / r) * torch.outer(B[:, k], A[k])
        return total.type_as(W)

    return way


def scale_on_B(sign):
    return lambda W, A, B, alpha, r: (W + ((sign * alpha / r) * B) @ A).to(W.dtype)


def in_place(sign):
    def way(W, A, B, alpha, r):
        W += (sign * alpha / r * (B @ A)).to(W.dtype)
        return W

    return way


def in_place_kept(sign):
    def way(W, A, B, alpha, r):
        W.copy_((W + sign * alpha / r * (B @ A)).to(W.dtype))
        return W

    return way


def update(W, A, B, alpha, r):
    return (alpha / r * (B @ A)).to(W.dtype)


def transposed(W, A, B, alpha, r):
    return (W + alpha / r * (A.T @ B.T)).to(W.dtype)


def twice(way):
    return lambda W, *rest: way(way(W, *rest), *rest)


def rounded_update(sign):
    return lambda W, A, B, alpha, r: W + sign * (alpha / r * (B @ A)).to(W.dtype)


def rounded_matrices(sign):
    return lambda W, A, B, alpha, r: W + sign * (alpha / r) * (B.to(W.dtype) @ A.to(W.dtype))


def kept_in_float32(sign):
    return lambda W, A, B, alpha, r: W + sign * (alpha / r) * (B @ A)


def nothing_returned(W, A, B, alpha, r):
    W + alpha / r * (B @ A)


def a_list(W, A, B, alpha, r):
    return (W + alpha / r * (B @ A)).tolist()


right_merge = with_factor(lambda a, r: a / r)
right_unmerge = with_factor(lambda a, r: a / r, -1)

RIGHT = {
    "20.merge": {
        "one line": right_merge,
        "float64": in_float64(1),
        "rank by rank": rank_by_rank(1),
        "factor on B": scale_on_B(1),
    },
    "20.unmerge": {
        "one line": right_unmerge,
        "float64": in_float64(-1),
        "merging the negative": lambda W, A, B, alpha, r: right_merge(W, A, B, -alpha, r),
    },
}


def shared(sign):
    """Mistakes that can be made in both directions."""
    return {
        "α without r": (with_factor(lambda a, r: a, sign), "without dividing by r"),
        "no factor": (with_factor(lambda a, r: 1, sign), "α/r is missing"),
        "upside down": (with_factor(lambda a, r: r / a, sign), "upside down"),
        "rank-stabilised": (with_factor(lambda a, r: a / r**0.5, sign), "rank-stabilised"),
        "scaled twice": (
            with_factor(lambda a, r: (a / r) ** 2, sign),
            "factor α/r was applied twice",
        ),
        "update rounded": (rounded_update(sign), "The update was rounded to bfloat16 before"),
        "matrices rounded": (rounded_matrices(sign), "A and B were rounded"),
        "kept in float32": (kept_in_float32(sign), "is in float32, twice the size"),
        "in place": (in_place_kept(sign), "changes its own input"),
        "nothing returned": (nothing_returned, "is None, but"),
    }


WRONG = {
    "20.merge": shared(1)
    | {
        "delta twice": (twice(right_merge), "The update was applied twice"),
        "adapter never loaded": (lambda W, *_: W, "as if the adapter had never been loaded"),
        "subtracted": (right_unmerge, "takes an adapter *out*"),
        "update alone": (update, "The weight of the base is missing"),
        "transposed": (transposed, "RuntimeError"),
        "a list": (a_list, "a tensor"),
    },
    "20.unmerge": shared(-1)
    | {
        "delta twice": (twice(right_unmerge), "The update was applied twice"),
        "nothing taken out": (lambda W, *_: W, "Nothing was taken out"),
        "added again": (right_merge, "added once more"),
        "update alone": (update, "not the weight without it"),
    },
}
