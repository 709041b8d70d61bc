"""The one exception for what a user can put right, and how to tell that memory was too small."""


class InputError(ValueError):
    """Bad input: names what was given, what was expected and what to do.

    The command line shows its message as one line and exits with status 2; any other exception
    is a defect of ours and keeps its traceback.

    Args:
        message: in the words of the library: it names arguments, not options of commands.
        remedy: the argument or function that helps, such as ``"image_size"``, where the message
            names one: a command adds its own option for it.
    """

    def __init__(self, message: str, *, remedy: str | None = None):
        super().__init__(message)
        self.remedy = remedy


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory left: Python's and NumPy's error, or XLA's and tensorstore's."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
