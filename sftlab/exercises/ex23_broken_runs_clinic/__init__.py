"""Which probes find the broken runs, and which raise a false alarm?"""

EMBEDDED_ALONE = "its runs were recorded on the embedded model, and are compared with these"
