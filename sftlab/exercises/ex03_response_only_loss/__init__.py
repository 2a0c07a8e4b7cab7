"""What changes if the prompt is trained as well?"""

MINUTES = 6  # on two cores with SmolLM2-135M
