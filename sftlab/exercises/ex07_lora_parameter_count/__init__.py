"""How many parameters does LoRA train?"""
