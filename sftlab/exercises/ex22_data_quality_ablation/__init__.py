"""What do bad training pairs cost, and what does a filter win back?"""

MINUTES = 12  # on two cores with SmolLM2-135M
