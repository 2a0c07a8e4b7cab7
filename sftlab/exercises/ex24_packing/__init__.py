"""What does packing save, and what happens if the examples of a sequence read each other?"""

MINUTES = 6  # on two cores with SmolLM2-135M
