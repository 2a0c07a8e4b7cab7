"""The names that notebook 15 uses, from the package and from this exercise."""

from random import Random

import pandas as pd

from sftlab import masking
from sftlab.chat import CHATML, encode, end_of_turn_id
from sftlab.classroom.views import token_view, visible
from sftlab.data import collate
from sftlab.exercises.ex15_multi_turn_masking.experiment import (
    FIRST,
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
    from_trl,
)
from sftlab.exercises.ex15_multi_turn_masking.plots import (
    MEASURES,
    answers_table,
    claims,
    draw_effects,
    draw_losses,
    end_of_turn_table,
    place_ratio,
    share,
    why_it_ends,
    why_it_goes_on,
    why_last,
)
from sftlab.exercises.ex15_multi_turn_masking.random_conversations import (
    cut,
    damage,
    random_conversation,
)
from sftlab.exercises.ex15_multi_turn_masking.variants import TEMPLATES
from sftlab.exercises.record import runs
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example
from sftlab.models import load

__all__ = [
    "CHATML", "FIRST", "IGNORE_INDEX", "IN", "MEASURES", "OUT", "TEMPLATES", "Example", "Random",
    "agreement", "answers_table", "ask", "claims", "collate", "count_equal", "cut", "damage",
    "defaults", "draw_effects", "draw_losses", "encode", "end_of_turn_id", "end_of_turn_table",
    "from_trl", "load", "masking", "measure", "pd", "place_ratio", "questions",
    "random_conversation", "runs", "share", "token_view", "train", "training_pairs", "visible",
    "why_it_ends", "why_it_goes_on", "why_last",
]  # fmt: skip
