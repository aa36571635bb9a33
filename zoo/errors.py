"""The one exception of the zoo; its message is meant for the person at the keyboard."""


class ZooError(ValueError):
    """What was asked cannot be done.

    The message is one line that names the entry, file or address and the fix; the command line prints it without a
    traceback and exits with status 2.
    """


def shown(value: object, longest: int = 100) -> str:
    """A name as it was typed, or a value as Python writes it, fit for a line: printable, and cut where it is long."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        text = "a huge number"
    except RecursionError:
        text = "something deeply nested"
    text = text if len(text) <= longest else f"{text[:longest]}..."
    return text if text.isprintable() else "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
