"""What do a few training pairs teach: the format of an answer, or its facts?"""

EMBEDDED_ALONE = (
    "its questions are sorted by what the base has read often, once or never, which "
    "is known of the embedded model alone"
)
