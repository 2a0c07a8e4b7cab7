"""May two conversations share a row of a batch?"""

MINUTES = 6  # on two cores with SmolLM2-135M
