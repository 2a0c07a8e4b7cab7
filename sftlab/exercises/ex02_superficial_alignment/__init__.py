"""How many pairs does the format need, and where do the facts come from?"""

EMBEDDED_ALONE = (
    "its questions are sorted by what the base has read often, once or never, which "
    "is known of the embedded model alone"
)
