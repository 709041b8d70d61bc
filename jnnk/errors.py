"""The one exception for what a user can put right."""


class InputError(ValueError):
    """Bad input: names what was given, what was expected and what to do.

    The command line shows its message as one line and exits with status 2; any other exception
    is a defect of ours and keeps its traceback.
    """
