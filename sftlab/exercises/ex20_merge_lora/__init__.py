"""What does merging change in weights, logits and answers, and what does it save?"""

MINUTES = 5  # on two cores with SmolLM2-135M
