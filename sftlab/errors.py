"""The one exception for what a user can mend: it says what is wrong, where, and what to do."""


class WorkbookError(ValueError):
    """Bad input, a missing file, a damaged model: anything with a remedy, told in clear words."""
