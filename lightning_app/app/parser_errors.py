"""jsonargparse's messages as one line that names the value and the fix."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from lightning_app.app.arguments import config_files
from lightning_app.app.class_names import names_below, registered
from lightning_app.app.trust import ADVICE
from lightning_app.util.errors import suggest

ELSEWHERE = {  # what other programs call our options
    option: ours
    for ours, theirs in {
        "--trainer.max_epochs": "epochs epoch num_epochs n_epochs max_epochs",
        "--trainer.max_steps": "steps iters iterations max_iters max_steps",
        "--trainer.devices": "gpus gpu num_gpus gpu_ids ngpus devices",
        "--trainer.accelerator": "device accelerator",
        "--trainer.precision bf16-mixed": "amp fp16 bf16 half precision",
        "--model.lr": "lr learning_rate base_lr",
        "--model.weight_decay": "wd weight_decay decay",
        "--model.optimizer": "optimizer optim opt",
        "--model.head": "head decoder decode_head model",
        "--model.backbone.name": "backbone arch encoder net",
        "--model.weights": "load_from init finetune pretrained_weights",
        "--model.backbone.pretrained true": "pretrained",
        "--data": "dataset",
        "--data.root": "root data_root data_dir data_path dataset_root",
        "--data.batch_size": "batch_size batch bs b train_batch_size",
        "--data.num_workers": "workers num_workers j",
        "--data.crop_size": "crop crop_size imgsz img_size image_size size",
        "--data.predict_folder": "input source images",
        "--run": "output out output_dir out_dir save_dir work_dir name exp project log_dir",
        "--ckpt_path": "checkpoint ckpt resume resume_from",
        "--seed_everything": "seed",
    }.items()
    for option in theirs.split()
}


# What jsonargparse 4.53 says; tests/app/test_parser_errors.py holds each against the version that is installed.
KEY: Final = re.compile(r'(?:[Pp]arser key "|^--)([\w.]+?)(?:\.help)?(?:"|: )')
DENIED: Final = re.compile(r"Importing '([\w.]+)' is not allowed")
UNKNOWN: Final = re.compile(r"[Uu]nrecognized arguments: --?([\w.-]+)")
STRAY: Final = re.compile(r"unrecognized arguments: (.+)")
NO_KEY: Final = re.compile(r"does not accept option '([\w.]+)'")
NO_ARGUMENT: Final = re.compile(r"Option '(\w+)' is not accepted")
LINKED: Final = re.compile(r'Linked "(model\.\w+)')
LINKED_VALUE: Final = re.compile(r"--> (model\.\w+): invalid")
NO_CLASS: Final = re.compile(r"dot import path string: ([\w.]+)")
GIVEN: Final = re.compile(r"Given value: (.*)")  # of a union
GOT: Final = re.compile(r"Got value: (.*)")
LITERAL: Final = re.compile(r"Literal\[([^]]*)\]")
UNION: Final = re.compile(r"Subtypes: \[(.*?)\] Errors")
TYPE: Final = re.compile(r"Expected an? (<class '.*?'>)")
MISSING: Final = re.compile(r"arguments are required: (?:\w+\.)?([\w.]+)")
# What we said of an argument of a class, which each parser around it says again.
SAID_OPTION: Final = re.compile(r'Unknown option "[^"]+"\..*?\)')
SAID_VALUE: Final = re.compile(r'- (\w+ cannot be ".*?"(?:: expected .+?(?= - Expected)|\..*?\(one of .*?\)))')


def explain(message: str, options: list[str], choices: Mapping[str, type]) -> str:
    """One line for a person.

    Args:
        message: what jsonargparse says, over many lines where a type is a union.
        options: the options of the parser that says it.
        choices: what is chosen by the name of a class -> what that class is below.
    """
    text = " ".join(message.split())
    key = (KEY.search(text) or ["", ""])[1]
    if wrong := DENIED.search(text):
        return f'{key} cannot be "{wrong[1]}", which is not part of this program: {ADVICE}'
    if said := SAID_OPTION.search(text):
        return said[0]
    if said := SAID_VALUE.search(text):
        return f"{key}.{said[1]}"
    if linked := LINKED.search(text) or LINKED_VALUE.search(text):
        return f"{linked[1]} comes from the data: leave it out"
    if missing := MISSING.search(text):
        names = names_below(choices["data"]) if missing[1] == "data" else []
        name = "CamVid" if "CamVid" in names else names[0] if names else None
        example = f", such as --data {name} --data.root FOLDER" if name else ""
        example = ", such as -c backbone/resnet50" if missing[1] == "model.backbone" else example
        return f"--{missing[1]} is required{example}"
    return _option(text, options) or _class(text, key, choices) or _value(text, key) or text


def _option(text: str, options: list[str]) -> str | None:
    """An option that there is not, or a word that is none."""
    if wrong := UNKNOWN.search(text):
        if ours := ELSEWHERE.get(wrong[1].replace("-", "_")):
            return f'Unknown option "--{wrong[1]}". Here it is {ours} (--help-all lists them)'
        return f'Unknown option "--{wrong[1]}".{_suggest(f"--{wrong[1]}", options)} (--help-all lists them)'
    if wrong := STRAY.search(text):
        return f'What is "{wrong[1]}"? Options begin with --'
    if wrong := NO_KEY.search(text):
        return f'Unknown option "{wrong[1]}".{_suggest(wrong[1], [option.lstrip("-") for option in options])}'
    if wrong := NO_ARGUMENT.search(text):
        known = [option.lstrip("-") for option in options if re.fullmatch(r"--[a-z_]+", option) and option != "--help"]
        return f'Unknown option "{wrong[1]}".{_suggest(wrong[1], known)} (one of {", ".join(known)})'
    return None


def _class(text: str, key: str, choices: Mapping[str, type]) -> str | None:
    """A class that there is not."""
    wrong, noun = NO_CLASS.search(text), key.rpartition(".")[2]
    if wrong is None:
        return None
    if noun not in choices:
        return f'{key} cannot be "{wrong[1]}": no such class; give its full path, such as package.module.Class'
    names = names_below(choices[noun])
    listing = "contextzoo heads" if registered(choices[noun]) else f"one of {', '.join(names)}"
    return f'Unknown {noun} "{wrong[1]}".{_suggest(wrong[1], names)} ({listing})'


def _value(text: str, key: str) -> str | None:
    """A value of another type."""
    value = GIVEN.search(text) or GOT.search(text)
    if not key or value is None:
        return None
    if choices := [choice for group in LITERAL.findall(text) for choice in re.findall(r"'([^']*)'", group)]:
        unique = list(dict.fromkeys(choices))
        return f'{key} cannot be "{value[1]}".{_suggest(value[1], unique)} (one of {", ".join(unique)})'
    kinds = UNION.search(text) or TYPE.search(text)
    return f'{key} cannot be "{value[1]}": expected {_readable(kinds[1])}' if kinds else None


def with_file(message: str, args: Sequence[str]) -> str:
    """``message`` with the configuration file in front that holds the word it complains of, unless that was typed."""
    word = (re.search(r'"(?:[\w.-]*\.)?([^"]+)"', message) or ["", ""])[1]
    holds = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
    if word and not any(holds.search(arg) for arg in args):
        for file in reversed(config_files(args)):
            if file.is_file() and holds.search(file.read_text()):
                return f"{file}: {message}"
    return message


def _readable(kinds: str) -> str:
    """Types as a person writes them: ``int or null``."""
    names = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", kinds).replace("NoneType", "null")
    makes = r"[\w.]*Callable\[\[(?:[^\[\]]|\[[^\]]*\])*\], (?:[\w.]+\.)?(\w+)\]"  # what makes one: its class
    names = re.sub(makes, r"\1", names)
    return " or ".join(re.split(r", (?![^\[]*\])", names))


def _suggest(word: str, known: list[str]) -> str:
    """A suggestion where one of ``known`` is near, or ends with the word."""
    longer = [name for name in known if name.endswith(f".{word.lstrip('-')}")]
    return f' Did you mean "{longer[0]}"?' if longer else suggest(word, known, cutoff=0.5)
