"""Errors and what they were raised from."""

from lightning_app.runs.endings import why_it_ended
from lightning_app.util.errors import InputError, causes, input_error


def test_an_error_among_its_own_causes_is_met_once() -> None:
    first, second = ValueError("first"), RuntimeError("second")
    first.__context__, second.__context__ = second, first
    assert causes(first) == [first, second]
    assert input_error(first) is None
    assert why_it_ended(first, None) is None


def test_the_input_error_behind_an_error_is_found() -> None:
    wanted, wrapper = InputError("a line"), TypeError("wrapped")
    wrapper.__cause__ = wanted
    assert input_error(wrapper) is wanted
