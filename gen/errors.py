"""The one error that a user may cause."""


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one sentence: what, got, allowed, how to mend it. The command line prints it
    without a traceback and exits with code 2.
    """
