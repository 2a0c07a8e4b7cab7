"""What is trained of a tool call and of a thought, and what does a small model do with them?"""

MINUTES = 8  # on two cores with SmolLM2-135M
