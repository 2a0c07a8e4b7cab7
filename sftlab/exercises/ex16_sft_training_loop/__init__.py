"""Which checkpoint of a run do you keep, and what did the run gain?"""

MINUTES = 30  # on two cores with SmolLM2-135M
