"""jsonargparse's messages as one line that names the value and the fix."""

import difflib
import re
from inspect import isabstract

from lightning_app.backbone import Backbone
from lightning_app.data import SegmentationDataModule
from lightning_app.heads.base import ContextHead

CHOICES = {"head": ContextHead, "auxiliary": ContextHead, "data": SegmentationDataModule, "backbone": Backbone}


def explain(message: str, options: list[str]) -> str:
    """One line for a person.

    Args:
        message: what jsonargparse says, over many lines where a type is a union.
        options: the options of the parser that says it.
    """
    text = " ".join(message.split())
    if inner := re.search(r'Unknown option "[^"]+"\..*?\)', text):  # of a class, said again by each parser around it
        return inner[0]
    if wrong := re.search(r"[Uu]nrecognized arguments: --?([\w.]+)", text):
        return f'Unknown option "--{wrong[1]}".{closest(f"--{wrong[1]}", options)} (--help-all lists them)'
    if wrong := re.search(r"Option '(\w+)' is not accepted", text):
        known = [option.lstrip("-") for option in options if re.fullmatch(r"--[a-z_]+", option) and option != "--help"]
        return f'Unknown option "{wrong[1]}".{closest(wrong[1], known)} (one of {", ".join(known)})'
    key = (re.search(r'[Pp]arser key "([\w.]+)"', text) or ["", ""])[1]
    if wrong := re.search(r"dot import path string: ([\w.]+)", text):
        noun = key.rpartition(".")[2]
        names = _subclasses(CHOICES[noun]) if noun in CHOICES else []
        listing = "contextzoo heads" if CHOICES.get(noun) is ContextHead else f"one of {', '.join(names)}"
        return f'Unknown {noun} "{wrong[1]}".{closest(wrong[1], names)} ({listing})'
    value = re.search(r"(?:Given value|Got value): (.*)", text)
    if value and (nested := re.match(r"NestedArg\(key='([\w.]+)', val='?(.*?)'?\)$", value[1])):
        return f'{key}.{nested[1]} cannot be "{nested[2]}" ({key}.help CLASS says what it can be)'
    if key and value:
        choices = [
            choice for group in re.findall(r"Literal\[([^]]*)\]", text) for choice in re.findall(r"'([^']*)'", group)
        ]
        if choices:
            unique = list(dict.fromkeys(choices))
            return f'{key} cannot be "{value[1]}".{closest(value[1], unique)} (one of {", ".join(unique)})'
        kinds = list(dict.fromkeys(re.findall(r"Expected an? <class '(\w+)'>", text)))
        if kinds:
            return f'{key} cannot be "{value[1]}": expected {" or ".join(kinds).replace("NoneType", "null")}'
    if missing := re.search(r"arguments are required: (?:\w+\.)?([\w.]+)", text):
        return (
            f"--{missing[1]} is required{', such as --data CamVid --data.root FOLDER' if missing[1] == 'data' else ''}"
        )
    return text


def closest(word: str, known: list[str]) -> str:
    """A suggestion where one of ``known`` is near."""
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.5)
    return f' Did you mean "{lower[close[0]]}"?' if close else ""


def _subclasses(base: type) -> list[str]:
    below = [name for child in base.__subclasses__() for name in _subclasses(child)]
    return sorted({*below, *([] if isabstract(base) else [base.__name__])})
