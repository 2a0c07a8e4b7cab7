"""On which layers does the same number of LoRA parameters learn most?"""
