"""What makes a model answer instead of continuing: its weights, or the template?"""
