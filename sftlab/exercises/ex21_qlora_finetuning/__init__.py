"""What does a base in 4 bits save, and what does training on it cost?"""

MINUTES = 6  # on two cores with SmolLM2-135M
