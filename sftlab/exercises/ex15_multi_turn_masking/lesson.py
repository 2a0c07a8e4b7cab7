"""The names that notebook 15 uses, from the package and from this exercise."""

from random import Random

import pandas as pd

from sftlab.chat import CHATML, encode, end_of_turn_id, render
from sftlab.classroom.views import token_view, visible
from sftlab.data import INSTRUCTIONS, collate, load_conversations, tokenize_conversations
from sftlab.errors import WorkbookError
from sftlab.exercises.ex15_multi_turn_masking.answers_trained import EVERY, LAST, WRONG_0, WRONG_1
from sftlab.exercises.ex15_multi_turn_masking.experiment import (
    IN,
    OUT,
    ask,
    measure,
    questions,
    train,
    training_pairs,
)
from sftlab.exercises.ex15_multi_turn_masking.libraries import (
    agreement,
    count_equal,
    defaults,
    from_transformers,
    from_trl,
    text_or_error,
    token_by_token,
)
from sftlab.exercises.ex15_multi_turn_masking.plots import (
    MEASURES,
    answers_table,
    claims,
    draw_damage,
    draw_effects,
    draw_losses,
    effect,
    end_of_turn_table,
    endings,
    in_points,
    loss_ratio,
    share,
    why_it_ends,
    why_last,
    why_right,
)
from sftlab.exercises.ex15_multi_turn_masking.random_conversations import (
    cut,
    damage,
    random_conversation,
)
from sftlab.exercises.ex15_multi_turn_masking.variants import TEMPLATES
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example
from sftlab.models import load

__all__ = [
    "CHATML", "EVERY", "IGNORE_INDEX", "IN", "INSTRUCTIONS", "LAST", "MEASURES", "OUT", "TEMPLATES",
    "WRONG_0", "WRONG_1", "Example", "Random", "WorkbookError", "agreement", "answers_table", "ask",
    "claims", "collate", "count_equal", "cut", "damage", "defaults", "draw_damage", "draw_effects",
    "draw_losses", "effect", "encode", "end_of_turn_id", "end_of_turn_table", "endings",
    "from_transformers", "from_trl", "in_points", "load", "load_conversations", "loss_ratio",
    "measure", "pd", "questions", "random_conversation", "render", "share", "text_or_error",
    "token_by_token", "token_view", "tokenize_conversations", "train", "training_pairs", "visible",
    "why_it_ends", "why_last", "why_right",
]  # fmt: skip
