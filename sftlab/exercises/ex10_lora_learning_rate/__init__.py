"""Why does LoRA want a larger learning rate?"""

MINUTES = 15  # on two cores with SmolLM2-135M
