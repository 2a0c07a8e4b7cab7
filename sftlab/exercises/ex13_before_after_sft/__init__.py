"""What do 32 pairs change, and what do wrong ones cost?"""

MINUTES = 4  # on two cores with SmolLM2-135M
