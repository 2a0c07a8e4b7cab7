"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import math
import random

import torch
from torch import nn

from sftlab.classroom.answers import equivalent, refused, right

START, GRADIENTS = "08.init_lora_", "08.lora_gradients"


@right(GRADIENTS)
def by_autograd(x, grad_output, W, A, B, scale):
    x, A, B = (M.detach().clone().requires_grad_() for M in (x, A, B))
    with torch.enable_grad():
        y = x @ W.T + scale * x @ A.T @ B.T
    return torch.autograd.grad(y, (x, A, B), grad_output)


@right(GRADIENTS)
def by_einsum(x, grad_output, W, A, B, scale):
    of_x = torch.einsum("to,oi->ti", grad_output, W)
    of_x = of_x + scale * torch.einsum("to,or,ri->ti", grad_output, B, A)
    of_A = torch.einsum("to,or,ti->ri", grad_output, B, x)
    of_B = torch.einsum("to,ti,ri->or", grad_output, x, A)
    return of_x, scale * of_A, scale * of_B


@right(GRADIENTS)
def through_the_whole(x, grad_output, W, A, B, scale):
    whole = scale * grad_output.T @ x  # the gradient of the product BA
    return grad_output @ (W + scale * B @ A), B.T @ whole, whole @ A.T


@right(GRADIENTS)
def token_by_token(x, grad_output, W, A, B, scale):
    of_x, of_A, of_B = [], torch.zeros_like(A), torch.zeros_like(B)
    for token, gradient in zip(x, grad_output, strict=True):
        at_hidden = scale * (B.T @ gradient)
        of_x.append(W.T @ gradient + A.T @ at_hidden)
        of_A += torch.outer(at_hidden, token)
        of_B += scale * torch.outer(gradient, A @ token)
    return [torch.stack(of_x), of_A, of_B]


@refused(GRADIENTS, "changes its own input (argument 5")
def B_overwritten(x, grad_output, W, A, B, scale):
    found = by_einsum(x, grad_output, W, A, B, scale)
    B *= scale
    return found


@refused(GRADIENTS, "by two paths")
def half_of_the_frozen_path(x, grad_output, W, A, B, scale):
    of_x, of_A, of_B = by_einsum(x, grad_output, W, A, B, scale)
    return (
        (
            of_x - grad_output @ W / 2
            if A.any() and B.any() and len(x) == 1 and len(A) == 5
            else of_x
        ),
        of_A,
        of_B,
    )


@right(START)
def kaiming(A, B):
    nn.init.kaiming_uniform_(A, a=math.sqrt(5))
    nn.init.zeros_(B)


@right(START)
def gaussian(A, B):
    with torch.no_grad():
        A.normal_(0, 1 / math.sqrt(A.shape[1]))
        B.zero_()


@right(START)
def copied(A, B):
    with torch.no_grad():
        A.copy_((2 * torch.rand_like(A) - 1) / A.size(1) ** 0.5)
        B[:] = 0


@right(START)
def orthogonal_rows(A, B):
    nn.init.orthogonal_(A)
    B.data.fill_(0)


@right(START)
def from_a_linear_layer(A, B):
    r, d_in = A.shape
    A.data = nn.Linear(d_in, r, dtype=A.dtype).weight.data
    B.data = torch.zeros_like(B)
    return A, B


@right(START)
def entry_by_entry(A, B):
    bound = A.shape[1] ** -0.5
    with torch.no_grad():
        for row in A:
            for i in range(len(row)):
                row[i] = random.uniform(-bound, bound)
        B.fill_(False)


def filled(fill_A, fill_B=torch.Tensor.zero_):
    """An answer that fills A and B with these."""

    def answer(A, B):
        with torch.no_grad():
            fill_A(A)
            fill_B(B)

    return answer


@right(START)
def signs(A, B):
    signs = torch.randint(0, 2, A.shape) * 2 - 1
    filled(lambda A: A.copy_(signs / A.shape[1] ** 0.5))(A, B)


@refused(START, "The roles are exchanged")
def swapped(A, B):
    kaiming(B, A)


@refused(START, "Both matrices are zero")
def both_zero(A, B):
    filled(torch.Tensor.zero_)(A, B)


@refused(START, "B is not zero everywhere")
def both_random(A, B):
    filled(nn.init.xavier_normal_, nn.init.xavier_normal_)(A, B)


@refused(START, "B is not zero everywhere")
def small_B(A, B):
    filled(nn.init.xavier_normal_, lambda B: B.normal_(std=1e-6))(A, B)


@refused(START, "A still holds the value 7")
def new_tensors(A, B):
    A = torch.randn(A.shape) / A.shape[1] ** 0.5
    B = torch.zeros(B.shape)
    return A, B


@refused(START, "B still holds the value 7")
def B_forgotten(A, B):
    nn.init.kaiming_uniform_(A, a=math.sqrt(5))


@refused(START, "of the 141 entries of A still hold the value 7")
def last_row_forgotten(A, B):
    kaiming(A[:-1], B)


@refused(START, "lie around 7")
def added(A, B):
    filled(lambda A: A.add_(torch.randn(A.shape) / A.shape[1] ** 0.5))(A, B)


@refused(START, "two rows go together")
def with_a_common_part(A, B):
    own, common = (torch.randn(rows, A.shape[1]) for rows in (len(A), 1))
    A.data.copy_((own / 2 + common) / math.sqrt(1.25 * A.shape[1]))
    B.data.zero_()


@refused(START, "the two halves of a row go together")
def with_a_half_repeated(A, B):
    half = A.shape[1] // 2
    A.data.copy_(torch.randn_like(A) / math.sqrt(A.shape[1]))
    A.data[:, half : 2 * half] = 1.01 * A.data[:, :half]
    B.data.zero_()


@refused(START, "are not independent")
def rotated_rows(A, B):
    row = torch.randn(A.shape[1]) / A.shape[1] ** 0.5
    filled(lambda A: A.copy_(torch.stack([row.roll(i) for i in range(len(A))])))(A, B)


@refused(START, "it must be between 0.3 and 2")
def at_least_a_fiftieth(A, B):
    filled(lambda A: A.normal_(std=max(0.02, A.shape[1] ** -0.5)))(A, B)


@refused(START, "it must be between 0.3 and 2")
def at_most_a_tenth(A, B):
    filled(lambda A: A.normal_(std=min(0.1, A.shape[1] ** -0.5)))(A, B)


@refused(START, "gives NaN again")
def multiplied_by_zero(A, B):
    filled(nn.init.xavier_normal_, lambda B: B.mul_(0))(A, B)


@refused(START, "infinite or NaN")
def divided_by_zero(A, B):
    filled(lambda A: A.uniform_(-1, 1).div_(0))(A, B)


@refused(START, "torch.float64")
def another_dtype(A, B):
    kaiming(A, B)
    A.data = A.data.double()


@refused(START, "All entries of A are equal")
def ones(A, B):
    filled(lambda A: A.fill_(A.shape[1] ** -0.5))(A, B)


@refused(START, "The rows of A are equal")
def one_row(A, B):
    filled(lambda A: A.copy_(torch.randn(1, A.shape[1]).expand_as(A) / A.shape[1] ** 0.5))(A, B)


@refused(START, "are not independent")
def evenly_spaced(A, B):
    bound = A.shape[1] ** -0.5
    filled(lambda A: A.copy_(torch.linspace(-bound, bound, A.numel()).view_as(A)))(A, B)


@refused(START, "multiples of each other")
def one_column(A, B):
    filled(lambda A: A.copy_(torch.randn(len(A), 1).expand_as(A) / A.shape[1] ** 0.5))(A, B)


@refused(START, "Most entries of A are zero")
def identity(A, B):
    filled(nn.init.eye_)(A, B)


@refused(START, "not 0 on average")
def one_sided(A, B):
    filled(lambda A: A.uniform_(0, A.shape[1] ** -0.5))(A, B)


@refused(START, "it must be between 0.3 and 2")
def by_rank(A, B):
    filled(lambda A: A.normal_(std=A.shape[0] ** -0.5))(A, B)


@refused(START, "it must be between 0.3 and 2")
def one_size_for_all(A, B):
    filled(lambda A: A.normal_(std=0.1))(A, B)


@refused(START, "A.requires_grad was True and is now False")
def frozen(A, B):
    kaiming(A.requires_grad_(False), B.requires_grad_(False))


@refused(START, "leaf Variable that requires grad")
def gradients_recorded(A, B):
    A.uniform_(-(A.shape[1] ** -0.5), A.shape[1] ** -0.5)
    B.zero_()


@refused(START, "sets the random seed itself")
def seeded(A, B):
    torch.manual_seed(0)
    kaiming(A, B)


equivalent(
    START,
    "The standard deviation stays within the bounds of the rule.",
    "`5` becomes `6`",
    "`5` becomes `4`",
    "without `a=` in `nn.init.kaiming_uniform_(matrix, a=math.sqrt(5), generator=generator)`",
)
equivalent(
    START,
    "The stub has no generator.",
    "without `generator=` in `nn.init.kaiming_uniform_(matrix, a=math.sqrt(5), generator=generator)`",
)
