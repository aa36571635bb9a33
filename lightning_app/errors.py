"""The one exception whose message is meant for the person at the keyboard."""


class InputError(ValueError):
    """What was given cannot work.

    The message is one line that names the file or argument, the value and the fix; the command line prints it without a
    traceback and exits with status 2.
    """
