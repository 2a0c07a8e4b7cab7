"""Which answers of a conversation are trained, and what if a model never learns to stop?"""

MINUTES = 5  # on two cores with SmolLM2-135M
