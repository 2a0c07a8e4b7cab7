"""Which change of a template costs answers, and for which models?"""

MINUTES = 3  # on two cores with SmolLM2-135M
