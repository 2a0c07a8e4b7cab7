"""What must stay the same on the way from your file to the model that answers?"""
