"""What do both ways cost in memory, time and quality?"""
