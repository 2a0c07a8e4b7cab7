"""Can a model be tuned that does not fit in 16 bit?"""

MINUTES = 4  # on two cores with SmolLM2-135M
