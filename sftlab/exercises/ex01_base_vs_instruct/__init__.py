"""What does a base model do with a bare question?"""
