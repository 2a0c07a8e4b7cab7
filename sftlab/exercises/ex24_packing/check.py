"""Checks of notebook 24: sequences by best fit, the block mask, and positions that restart."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.packing import block_mask, pack, position_ids

PACK, MASK, POSITIONS = "24.pack", "24.block_mask", "24.position_ids"

# --- pack ----------------------------------------------------------------------------------


def _placed(
    lengths: Sequence[int],
    size: int,
    order: Callable[[int], float] | None = None,
    choose: Callable[[list[int], list[int]], int] | None = None,
    spare: int = 0,
) -> list[list[int]]:
    """Place examples as ``pack`` does, but for one decision."""
    sequences: list[list[int]] = []
    free: list[int] = []
    numbers = range(len(lengths))
    for k in sorted(numbers, key=order or (lambda k: -lengths[k])):
        fitting = [sequence for sequence, space in enumerate(free) if space >= lengths[k] + spare]
        if not fitting:
            sequences.append([])
            free.append(size)
            fitting = [len(sequences) - 1]
        best = (choose or (lambda fitting, free: min(fitting, key=lambda r: free[r])))(fitting, free)  # fmt: skip
        sequences[best].append(k)
        free[best] -= lengths[k]
    return sequences


@mistake(PACK, "The examples are placed in the order of the list. Long ones that come late then find no room: begin with the longest.")  # fmt: skip
def _in_given_order(lengths, size):
    return _placed(lengths, size, order=lambda k: k)


@mistake(PACK, "The shortest examples come first. They fill the sequences, and the long ones find no room: begin with the longest.")  # fmt: skip
def _shortest_first(lengths, size):
    return _placed(lengths, size, order=lambda k: lengths[k])


@mistake(PACK, "This is first fit: the first sequence with room is taken. Best fit takes the sequence with the least free space that has room.")  # fmt: skip
def _first_fit(lengths, size):
    return _placed(lengths, size, choose=lambda fitting, free: fitting[0])


@mistake(PACK, "This is worst fit: the emptiest sequence is taken. Best fit takes the sequence with the least free space that has room.")  # fmt: skip
def _worst_fit(lengths, size):
    return _placed(lengths, size, choose=lambda fitting, free: max(fitting, key=lambda r: free[r]))


@mistake(PACK, "Only the last sequence is tried. An earlier one may still have room: look at all of them.")  # fmt: skip
def _next_fit(lengths, size):
    sequences, free = [], 0
    for k in sorted(range(len(lengths)), key=lambda k: -lengths[k]):
        if not sequences or lengths[k] > free:
            sequences.append([])
            free = size
        sequences[-1].append(k)
        free -= lengths[k]
    return sequences


@mistake(PACK, "A sequence is never filled to its last token: an example that fits exactly begins a new sequence. Compare free space and length once more.")  # fmt: skip
def _never_full(lengths, size):
    return _placed(lengths, size, spare=1)


@mistake(PACK, "These are lengths. Return the numbers of the examples: position in `lengths`, from 0.")  # fmt: skip
def _lengths_returned(lengths, size):
    return [[lengths[k] for k in sequence] for sequence in pack(lengths, size)]


@mistake(PACK, "The numbers begin at 1. Examples are numbered as Python numbers a list.")
def _from_one(lengths, size):
    return [[k + 1 for k in sequence] for sequence in pack(lengths, size)]


@mistake(PACK, "New sequences are put before the others. Append them, so that the first example stays in the first sequence.")  # fmt: skip
def _new_row_first(lengths, size):
    return pack(lengths, size)[::-1]


@mistake(PACK, "Every example has a sequence of its own. That is what packing should avoid.")
def _one_a_row(lengths, size):
    return [[k] for k in sorted(range(len(lengths)), key=lambda k: -lengths[k])]


@mistake(PACK, "All sequences hold what they should, but the numbers in a sequence are sorted. They stand in the order in which they were placed.")  # fmt: skip
def _sorted_inside(lengths, size):
    return [sorted(sequence) for sequence in pack(lengths, size)]


@mistake(PACK, "Of equally long examples the last one is placed first. Reversing a sorted list also reverses equal entries.")  # fmt: skip
def _ties_reversed(lengths, size):
    return _placed(lengths, size, order=lambda k: (-lengths[k], -k))


@mistake(PACK, "Of equally full sequences the last one is taken. The first one is wanted.")
def _last_of_equal_rows(lengths, size):
    return _placed(
        lengths, size, choose=lambda fitting, free: min(fitting, key=lambda r: (free[r], -r))
    )


def _pack_case(rule: str, lengths: list[int], size: int, remark: str) -> Case:
    return Case(
        f"`pack({lengths}, {size})`: {remark}", lambda: (list(lengths), size), pack, rule=rule
    )


PACK_CASES = (
    _pack_case("new", [9, 8, 7], 10, "no two of them fit together"),
    _pack_case("new", [], 10, "no examples"),
    _pack_case("full", [10, 6, 4], 10, "two sequences are filled to the last token"),
    _pack_case("order", [3, 7, 4, 5, 1], 10, "five examples, two sequences"),
    _pack_case("order", [2, 9, 2, 9], 11, "equal lengths"),
    _pack_case("best", [6, 8, 2], 10, "two sequences have room for the last one"),
    _pack_case(
        "best",
        [12, 9, 9, 2],
        20,
        "the first sequence has room for the last one, and so has a fuller one",
    ),
    _pack_case("best", [7, 7, 2, 2], 13, "two sequences are equally full"),
)


def _draw_pack(rng: random.Random, *_: object) -> tuple:
    size = rng.randint(20, 40)
    return [rng.randint(1, size) for _ in range(rng.randint(5, 12))], size


# --- block_mask ----------------------------------------------------------------------------


def _causal(document_ids: torch.Tensor) -> torch.Tensor:
    length = document_ids.shape[-1]
    return torch.ones(*document_ids.shape, length, dtype=torch.bool).tril()


def _same(document_ids: torch.Tensor) -> torch.Tensor:
    return document_ids.unsqueeze(-1) == document_ids.unsqueeze(-2)


@mistake(MASK, "This is the causal mask alone: the documents of a sequence see each other. Compare the two document ids as well.")  # fmt: skip
def _causal_alone(document_ids):
    return _causal(document_ids)


@mistake(MASK, "Tokens attend to later ones of their document. A causal model predicts these: leave them out.")  # fmt: skip
def _not_causal(document_ids):
    return _same(document_ids)


@mistake(MASK, "A token does not attend to itself, so the first one of each document attends to nothing. The diagonal is True.")  # fmt: skip
def _without_itself(document_ids):
    return _same(document_ids).tril(-1)


@mistake(MASK, "The mask is transposed: tokens attend to later ones. The first of the two positions is the token that attends.")  # fmt: skip
def _transposed(document_ids):
    return _same(document_ids).triu()


@mistake(MASK, "True and False are exchanged: here True stands where a token is hidden. True is where the token attends.")  # fmt: skip
def _inverted(document_ids):
    return ~block_mask(document_ids)


@mistake(MASK, "These are the pairs of different documents. A token attends to its own document only.")  # fmt: skip
def _others(document_ids):
    return (~_same(document_ids)).tril()


@mistake(MASK, "A document with a higher number sees those with lower numbers. The two ids must be equal.")  # fmt: skip
def _lower_too(document_ids):
    return (document_ids.unsqueeze(-1) >= document_ids.unsqueeze(-2)) & _causal(document_ids)


@mistake(
    MASK, "The mask is that of the first sequence, repeated. Each sequence has its own documents."
)
def _first_row(document_ids):
    return block_mask(document_ids[0]).expand(*document_ids.shape, -1)


@mistake(MASK, "The values are right, but they are 0 and 1. Attention reads booleans: numbers would be added to its scores.")  # fmt: skip
def _as_numbers(document_ids):
    return block_mask(document_ids).long()


@mistake(MASK, "The values are right, but they are 0.0 and 1.0. Attention would add such numbers to its scores.")  # fmt: skip
def _as_floats(document_ids):
    return block_mask(document_ids).float()


def _mask_case(rule: str, ids: list[list[int]], remark: str) -> Case:
    return Case(f"`block_mask(tensor({ids}))`: {remark}", lambda: (torch.tensor(ids),), block_mask, rule=rule)  # fmt: skip


MASK_CASES = (
    _mask_case("earlier", [[0, 0, 0, 0]], "one document"),
    _mask_case("own", [[0, 0, 1, 1, 1]], "two documents in one sequence"),
    _mask_case("own", [[0, 0, 1], [2, 3, 3]], "two sequences"),
    _mask_case("own", [[7, 7, 3, 3, 5]], "numbers in any order"),
    _mask_case("earlier", [[4, 2, 9]], "documents of one token"),
    _mask_case("dtype", [[0, 1, 1]], "the type of the result"),
)


def _draw_documents(rng: random.Random, *_: object) -> tuple:
    sequences, length = rng.randint(1, 3), rng.randint(4, 8)
    made = []
    for _ in range(sequences):
        sequence: list[int] = []
        for number in rng.sample(range(9), 9):
            sequence += [number] * rng.randint(1, 4)
        made.append(sequence[:length])
    return (torch.tensor(made),)


# --- position_ids --------------------------------------------------------------------------


def _place(document_ids: torch.Tensor) -> torch.Tensor:
    return torch.arange(document_ids.shape[-1]).expand_as(document_ids)


@mistake(POSITIONS, "The positions run on to the end of the sequence. They restart at 0 where a new document begins.")  # fmt: skip
def _no_restart(document_ids):
    return _place(document_ids)


@mistake(POSITIONS, "The positions begin at 1. The first token of a document has position 0.")
def _begins_at_one(document_ids):
    return position_ids(document_ids) + 1


@mistake(POSITIONS, "Only the first document begins at 0, later ones begin at 1. The restart comes one token late.")  # fmt: skip
def _one_late(document_ids):
    positions = position_ids(document_ids)
    return positions + (positions != _place(document_ids))


@mistake(POSITIONS, "These are the places at which the documents begin. Subtract them from the place of each token.")  # fmt: skip
def _starts(document_ids):
    return _place(document_ids) - position_ids(document_ids)


@mistake(POSITIONS, "The positions count down to the end of a document. They count up from its beginning.")  # fmt: skip
def _counting_down(document_ids):
    return position_ids(document_ids.flip(-1)).flip(-1)


@mistake(POSITIONS, "The border of two sequences is missed: a sequence begins with the number with which the one before it ended, and the positions go on. Every sequence begins at 0.")  # fmt: skip
def _rows_joined(document_ids):
    return position_ids(document_ids.flatten()).view_as(document_ids)


@mistake(
    POSITIONS, "The positions are those of the first sequence. Each sequence has its own documents."
)
def _first_row_positions(document_ids):
    return position_ids(document_ids[0]).expand_as(document_ids)


@mistake(POSITIONS, "The number of the document is subtracted, not the place where it begins.")
def _number_subtracted(document_ids):
    return _place(document_ids) - document_ids


@mistake(POSITIONS, "A restart is found only where the number rises. Documents have any numbers: look for a change.")  # fmt: skip
def _only_rises(document_ids):
    rises = torch.ones_like(document_ids, dtype=torch.bool)
    rises[..., 1:] = document_ids[..., 1:] > document_ids[..., :-1]
    return _place(document_ids) - torch.where(rises, _place(document_ids), 0).cummax(-1).values


def _position_case(rule: str, ids: list[list[int]], remark: str) -> Case:
    return Case(f"`position_ids(tensor({ids}))`: {remark}", lambda: (torch.tensor(ids),), position_ids, rule=rule)  # fmt: skip


POSITION_CASES = (
    _position_case("restart", [[0, 0, 0, 1, 1]], "two documents in one sequence"),
    _position_case("restart", [[7, 7, 3, 3, 3, 5]], "numbers in any order"),
    _position_case("restart", [[2, 4, 4, 1]], "documents of one token"),
    _position_case("batch", [[0, 0, 1], [1, 1, 2]], "a number occurs in two sequences"),
    _position_case("batch", [[0, 1, 1, 1], [2, 2, 2, 3]], "two sequences"),
)


EXERCISES = {
    exercise.id: exercise
    for exercise in (
        Exercise(
            PACK,
            "Sequences by best fit",
            pack,
            PACK_CASES,
            asks="Return sequences that hold every example once, as lists of their numbers.\n\n"
            "lengths: number of tokens of each example; they are numbered from 0.\n"
            "size: largest number of tokens of a sequence; no example is longer.",
            rules={
                "order": "The longest example is placed first; of equally long ones, the first of lengths.",
                "best": "It is appended to the sequence with the least free space that has room; of equal ones, the first.",
                "new": "If no sequence has room, it begins a new one after the others.",
                "full": "A sequence may be filled to the last token.",
                "unchanged": "lengths stays as it is.",
            },
            draw=_draw_pack,
            hints=(
                "Keep two lists: the sequences, and how many tokens are still free in each.",
                ("best", "First collect the sequences that have room, then take the fullest of these."),
                "Sort the numbers of the examples, not their lengths. `sorted` leaves equal entries in their order.",
            ),
            path="Decide first in which order the examples come: sort their numbers by length. Then place one after the other. For each, list the sequences that have room, "
            "make a new sequence if there is none, and append to the fullest of them. The usual wrong turn is to stop at the first sequence that has room.",
            why="Long examples are hard to place, so they come first and the short ones fill the gaps. The fullest sequence that has room leaves the larger gaps open for later examples.",
            points=2,
        ),
        Exercise(
            MASK,
            "Which token attends to which",
            block_mask,
            MASK_CASES,
            asks="Return the attention mask of packed sequences, (batch, length, length).\n\n"
            "document_ids: (batch, length), the number of the document of each token.",
            rules={
                "own": "Entry [b, t, s] says whether token t attends to token s: only in its own document.",
                "earlier": "It attends to itself and to earlier tokens, and to none that come later.",
                "dtype": "The result is a tensor of booleans, True where token t attends.",
                "unchanged": "document_ids stays as it is.",
            },
            draw=_draw_documents,
            hints=(
                "Two conditions must hold for a pair of tokens. Write each as a table of length × length, then combine them.",
                ("own", "Broadcasting compares all pairs at once: put one copy of the ids in a column, the other in a row."),
                "For one sequence, `ids[:, None]` is a column. With a dimension for the batch in front, the new dimensions are the last two.",
            ),
            path="Take one sequence first. A column and a row of the same ids, compared, give a table that is True inside documents. `tril` leaves what is not later. Then let both work on "
            "the last two dimensions. The usual wrong turn is to forget the causal half: the loss then falls to almost nothing, because answers see themselves.",
            why="Equal ids make the blocks, and the lower triangle makes each block causal. Nothing is needed for padding: it has a number of its own, and no token of another document attends to it.",
        ),
        Exercise(
            POSITIONS,
            "Positions that restart",
            position_ids,
            POSITION_CASES,
            asks="Return the position of each token in its own document, (batch, length).\n\n"
            "document_ids: (batch, length), the number of the document of each token; in a\nsequence no number comes back.",
            rules={
                "restart": "Positions are whole numbers. They begin at 0 where the number changes, and rise by 1 in a document.",
                "batch": "Every sequence begins at 0, even if the sequence before it ended with the same number.",
                "unchanged": "document_ids stays as it is.",
            },
            draw=_draw_documents,
            hints=(
                "For each token, where does its document begin? The rest is a subtraction.",
                ("restart", "A document begins where a number differs from the one before it, whatever the numbers are."),
                "Keep the place of each beginning and 0 elsewhere: the largest value so far is the start of the current document (`cummax`).",
            ),
            path="Number the places of a sequence from 0. Mark the places at which a document begins. The last mark so far is the start of the current document; subtract it. A loop over the tokens is "
            "right as well. The usual wrong turn is to work on all sequences at once as if they were one.",
            why="The place minus the start of the document is the position that the token would have alone. It equals the number of tokens that it attends to in the block mask, minus one.",
        ),
    )
}  # fmt: skip
