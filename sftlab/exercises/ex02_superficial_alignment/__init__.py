"""Do a few good examples teach facts, or only form?"""

EMBEDDED_ALONE = (
    "its questions are sorted by what the base has read often, once or never, which "
    "is known of the embedded model alone"
)
