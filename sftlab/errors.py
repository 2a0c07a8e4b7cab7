"""The exception raised for problems that the user can fix."""


class WorkbookError(ValueError):
    """Invalid input, a missing file or a damaged model. The message says how to fix the problem."""
