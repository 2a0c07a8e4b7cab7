"""What do a few bad examples do?"""

MINUTES = 12  # on two cores with SmolLM2-135M
