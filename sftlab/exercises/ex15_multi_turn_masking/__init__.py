"""Which tokens of a long conversation are trained?"""

MINUTES = 5  # on two cores with SmolLM2-135M
