"""Does an adapter train as well on a 4-bit base?"""

MINUTES = 6  # on two cores with SmolLM2-135M
