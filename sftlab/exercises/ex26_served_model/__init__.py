"""Does the served model answer like the one that was trained?"""
