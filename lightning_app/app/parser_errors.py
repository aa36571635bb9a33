"""jsonargparse's messages as one line that names the value and the fix."""

import difflib
import re
from collections.abc import Sequence
from inspect import isabstract

from lightning_app.app.arguments import config_files
from lightning_app.app.trust import ADVICE
from lightning_app.backbones.base import Backbone
from lightning_app.data import SegmentationDataModule
from lightning_app.heads.base import ContextHead

CHOICES = {"head": ContextHead, "auxiliary": ContextHead, "data": SegmentationDataModule, "backbone": Backbone}

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


def explain(message: str, options: list[str]) -> str:
    """One line for a person.

    Args:
        message: what jsonargparse says, over many lines where a type is a union.
        options: the options of the parser that says it.
    """
    text = " ".join(message.split())
    known = [option.lstrip("-") for option in options if re.fullmatch(r"--[a-z_]+", option) and option != "--help"]
    key = (re.search(r'(?:[Pp]arser key "|^--)([\w.]+?)(?:\.help)?(?:"|: )', text) or ["", ""])[1]
    if wrong := re.search(r"Importing '([\w.]+)' is not allowed", text):
        return f'{key} cannot be "{wrong[1]}", which is not part of this program: {ADVICE}'
    if inner := re.search(r'Unknown option "[^"]+"\..*?\)', text):  # of a class, said again by each parser around it
        return inner[0]
    if inner := re.search(r'- (\w+ cannot be ".*?"(?:: expected .+?(?= - Expected)|\..*?\(one of .*?\)))', text):
        return f"{key}.{inner[1]}"
    if wrong := re.search(r"[Uu]nrecognized arguments: --?([\w.-]+)", text):
        if ours := ELSEWHERE.get(wrong[1].replace("-", "_")):
            return f'Unknown option "--{wrong[1]}". Here it is {ours} (--help-all lists them)'
        return f'Unknown option "--{wrong[1]}".{closest(f"--{wrong[1]}", options)} (--help-all lists them)'
    if wrong := re.search(r"unrecognized arguments: (.+)", text):
        return f'What is "{wrong[1]}"? Options begin with --'
    if wrong := re.search(r"does not accept option '([\w.]+)'", text):
        return f'Unknown option "{wrong[1]}".{closest(wrong[1], [option.lstrip("-") for option in options])}'
    if wrong := re.search(r"Option '(\w+)' is not accepted", text):
        return f'Unknown option "{wrong[1]}".{closest(wrong[1], known)} (one of {", ".join(known)})'
    if linked := re.search(r'(?:Linked "|--> )(model\.\w+)', text):
        return f"{linked[1]} comes from the data: leave it out"
    if wrong := re.search(r"dot import path string: ([\w.]+)", text):
        noun = key.rpartition(".")[2]
        if noun not in CHOICES:
            return f'{key} cannot be "{wrong[1]}": no such class; give its full path, such as package.module.Class'
        names = _subclasses(CHOICES[noun])
        listing = "contextzoo heads" if CHOICES[noun] is ContextHead else f"one of {', '.join(names)}"
        return f'Unknown {noun} "{wrong[1]}".{closest(wrong[1], names)} ({listing})'
    value = re.search(r"Given value: (.*)", text) or re.search(r"Got value: (.*)", text)
    if key and value:
        choices = [
            choice for group in re.findall(r"Literal\[([^]]*)\]", text) for choice in re.findall(r"'([^']*)'", group)
        ]
        if choices:
            unique = list(dict.fromkeys(choices))
            return f'{key} cannot be "{value[1]}".{closest(value[1], unique)} (one of {", ".join(unique)})'
        if kinds := re.search(r"Subtypes: \[(.*?)\] Errors", text) or re.search(r"Expected an? (<class '.*?'>)", text):
            return f'{key} cannot be "{value[1]}": expected {_readable(kinds[1])}'
    if missing := re.search(r"arguments are required: (?:\w+\.)?([\w.]+)", text):
        return (
            f"--{missing[1]} is required{', such as --data CamVid --data.root FOLDER' if missing[1] == 'data' else ''}"
        )
    return text


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


def closest(word: str, known: list[str]) -> str:
    """A suggestion where one of ``known`` is near."""
    for name in known:
        if name.endswith(f".{word.lstrip('-')}"):
            return f' Did you mean "{name}"?'
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.5)
    return f' Did you mean "{lower[close[0]]}"?' if close else ""


def _subclasses(base: type) -> list[str]:
    children: list[type] = base.__subclasses__()
    below = [name for child in children for name in _subclasses(child)]
    return sorted({*below, *([] if isabstract(base) else [base.__name__])})
