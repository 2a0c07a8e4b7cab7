"""sftlab: a hands-on workbook on supervised fine-tuning.

Import its modules one by one: they load what they need.
"""

__version__ = "0.1.0"
