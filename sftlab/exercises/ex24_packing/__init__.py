"""May two conversations share a sequence?"""

MINUTES = 6  # on two cores with SmolLM2-135M
