"""Which mistakes in a LoRA layer does a test see?"""
