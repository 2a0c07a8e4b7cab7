"""How do the parts make a model that follows instructions?"""

MINUTES = 30  # on two cores with SmolLM2-135M
