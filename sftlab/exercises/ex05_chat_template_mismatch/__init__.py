"""How much does a wrong template cost?"""

MINUTES = 3  # on two cores with SmolLM2-135M
