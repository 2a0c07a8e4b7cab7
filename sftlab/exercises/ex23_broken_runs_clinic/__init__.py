"""Would you notice that a run is broken?"""

EMBEDDED_ALONE = "its runs were recorded on the embedded model, and are compared with these"
