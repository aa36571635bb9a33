"""Objects that remember how they were made, so that a file can say how to make them again."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Self

from lightning_app.util.errors import InputError


class Described:
    """Keeps the arguments that it is constructed with."""

    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(self, *args, **kwargs)
        except TypeError:  # the constructor will say what is wrong; a copy is made without arguments
            return self
        bound.apply_defaults()  # one day they may be others
        arguments: dict[str, Any] = {}
        for name, value in list(bound.arguments.items())[1:]:
            kind = bound.signature.parameters[name].kind
            arguments |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
        self.__dict__["_arguments"] = arguments  # past torch's __setattr__, which is not ready yet
        return self

    def description(self, skip: int = 0) -> dict[str, Any]:
        """Class and arguments as a configuration writes them, without the ``skip`` first ones.

        Raises:
            InputError: an argument is not made of numbers, words, lists and dictionaries.
        """
        cls = type(self)
        arguments = {
            name: _plain(value, f"{cls.__name__} was made with {name}")
            for name, value in list(self._arguments.items())[skip:]
        }
        return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}


def _plain(value: Any, what: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value.expanduser().absolute())
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value), what)
    if isinstance(value, Mapping):
        return {key: _plain(each, what) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [_plain(each, what) for each in value]
    raise InputError(f"{what} of type {type(value).__name__}, which no file can describe")
