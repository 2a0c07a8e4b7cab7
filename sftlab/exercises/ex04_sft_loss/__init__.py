"""What exactly is added up, and divided by what?"""
