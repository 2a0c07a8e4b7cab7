"""Which tokens are trained, and what does masking really do?"""
