"""What does training few parameters save, and what does it protect?"""

MINUTES = 15  # on two cores with SmolLM2-135M
