"""How far is LoRA's best learning rate from that of full fine-tuning, and why?"""

MINUTES = 15  # on two cores with SmolLM2-135M
