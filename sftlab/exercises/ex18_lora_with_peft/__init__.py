"""What share of a real model does LoRA train?"""
