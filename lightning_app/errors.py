"""The one exception whose message is meant for the person at the keyboard."""


class InputError(ValueError):
    """What was given cannot work.

    The message is one line that names the file or argument, the value and the fix; the command line prints it without a
    traceback and exits with status 2.
    """


def input_error(error: BaseException | None) -> InputError | None:
    """The InputError that ``error`` is or was raised from."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error
