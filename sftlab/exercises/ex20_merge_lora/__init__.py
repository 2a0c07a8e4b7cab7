"""Is merging exact, and what does it save?"""

MINUTES = 4  # on two cores with SmolLM2-135M
