"""The exceptions whose message is meant for the person at the keyboard."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """What was given cannot work.

    The message is one line that names the file or argument, the value and the fix; the command line prints it without a
    traceback and exits with status 2.
    """


class Stopped(SystemExit):
    """A training that a signal has stopped; exits with the status that shells give that signal.

    All devices but the first end with an empty line and status 0: Lightning would kill the first for any other one.
    """

    def __init__(self, signal: int, line: str) -> None:
        super().__init__(128 + signal if line else 0)
        self.line = line


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise an InputError unless ``value`` is one of ``choices``: types alone do not stop a misspelt word."""
    if value not in choices:
        raise InputError(f'{name} cannot be "{value}" (one of {", ".join(choices)})')


def closest(word: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The ``known`` words that are nearest to ``word``, in any case."""
    words = {each.lower(): each for each in known}
    return [words[each] for each in get_close_matches(word.lower(), words, n=most, cutoff=cutoff)]


def suggest(word: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> str:
    """A question with the ``known`` words that are nearest to ``word``, or nothing: ' Did you mean "x"?'"""
    close = ", ".join(f'"{each}"' for each in closest(word, known, most=most, cutoff=cutoff))
    return f" Did you mean {close}?" if close else ""


def causes(error: BaseException | None) -> list[BaseException]:
    """``error`` and what it was raised from, each once: an error raised anew may stand among its own causes."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def input_error(error: BaseException | None) -> InputError | None:
    """The InputError that ``error`` is or was raised from."""
    return next((each for each in causes(error) if isinstance(each, InputError)), None)
