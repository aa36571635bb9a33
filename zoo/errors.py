"""The one exception of the zoo; its message is meant for the person at the keyboard."""


class ZooError(ValueError):
    """What was asked cannot be done.

    The message is one line that names the entry, file or address and the fix; the command line prints it without a
    traceback and exits with status 2.
    """
