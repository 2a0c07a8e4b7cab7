"""What is inside a LoRA layer?"""
