"""What does α/r keep steady?"""

MINUTES = 20  # on two cores with SmolLM2-135M
