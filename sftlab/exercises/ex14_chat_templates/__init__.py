"""What does a chat template insert, and what may a forged turn do?"""
