"""What a notebook says on a model other than the embedded one: how long it takes, or what it lacks."""

from __future__ import annotations

from sftlab.errors import WorkbookError

# Notebooks that are about what the embedded base has read, fact by fact.
LACKS = {
    "02": "its questions are sorted by what the base has read often, once or never, which is known "
    "of the embedded model alone",
    "23": "its ten cases were recorded on the embedded model, and are compared with these runs",
}
# Minutes on two cores with SmolLM2-135M, where they are more than two.
MINUTES = {
    "03": 6, "05": 3, "06": 15, "08": 8, "09": 20, "10": 15, "13": 4, "15": 5, "16": 30, "20": 4,
    "21": 4, "22": 12,
}  # fmt: skip


def told(number: str, model: str) -> list[str]:
    """The lines that ``start`` adds.

    Raises:
        WorkbookError: the notebook cannot run on this model.
    """
    if str(model).startswith("almanac"):
        return []
    if number in LACKS:
        raise WorkbookError(
            f"notebook {number} does not run on {model}: {LACKS[number]}. Put  "
            'MODEL = "almanac"  into the first cell'
        )
    minutes = MINUTES.get(number)
    if not minutes:
        return [f"MODEL is {model}: what the text says in numbers is about the embedded model."]
    return [
        f"MODEL is {model}: on two cores this notebook takes about {minutes} minutes with 135 "
        "million weights, longer with more. Bars show how far a training is; the stop button ends "
        "it, and its cell can be run again. What the text says in numbers is about the embedded "
        "model."
    ]
