"""Must you tune again when the rank changes, and is α a learning rate?"""

MINUTES = 20  # on two cores with SmolLM2-135M
