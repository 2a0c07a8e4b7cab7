"""How few pairs turn continuing into answering?"""

MINUTES = 4  # on two cores with SmolLM2-135M
