"""Why does B start at zero, and A not?"""

MINUTES = 8  # on two cores with SmolLM2-135M
