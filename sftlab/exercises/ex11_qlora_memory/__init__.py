"""How does a 70B model fit into 40 GB?"""
