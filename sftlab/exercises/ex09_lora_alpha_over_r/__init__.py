"""What stays steady when LoRA's rank changes, and is α a learning rate?"""

MINUTES = 20  # on two cores with SmolLM2-135M
