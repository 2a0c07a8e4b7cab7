"""Which runs look healthy and are broken?"""

EMBEDDED_ALONE = (
    "its ten cases were recorded on the embedded model, and are compared with these runs"
)
