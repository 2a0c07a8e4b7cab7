"""What does a base in 4 bits save and cost, and which lines take back the saving?"""

MINUTES = 6  # on two cores with SmolLM2-135M
