"""What does a chat template insert?"""
