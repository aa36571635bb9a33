"""Help that a person can read: what a training command takes, from the docstrings, without importing torch."""

import ast
import textwrap
from pathlib import Path

import docstring_parser

from lightning_app.app import configs

PACKAGE = Path(__file__).parents[1]
EVALUATED = ("protocol", "channels_last", "compile")  # what of a model can be changed after its training
LOADED = ("num_workers", "val_batch_size")
EVALUATING = ("precision", "accelerator", "devices", "strategy")
TRAINER = {
    "max_epochs": "how long to train",
    "max_steps": "likewise, in optimiser steps (with --trainer.max_epochs -1)",
    "precision": "32-true, bf16-mixed, 16-mixed",
    "accelerator": "auto, cpu, gpu",
    "devices": "how many",
    "strategy": "auto, ddp, ...",
    "sync_batchnorm": "share batch statistics over devices",
    "accumulate_grad_batches": "batches per step",
    "gradient_clip_val": "clip gradients by norm",
    "check_val_every_n_epoch": "epochs between validations",
}


def usage(verb: str, what: str) -> str:
    """The page that ``contextzoo VERB --help`` prints."""
    recipe = "-c recipes/camvid_cpu --data.root DIR"
    examples = {
        "fit": [recipe, f"{recipe} --model.head CCNet --model.head.recurrence 3", "--ckpt_path last"],
        "predict": ["--ckpt_path best --data.predict_folder PHOTOS"],
    }.get(verb, ["--ckpt_path best", "--ckpt_path runs/NAME/checkpoints/best.ckpt --data CamVid --data.root DIR"])
    lines = [f"contextzoo {verb}: {what}", ""]
    lines += [f"  contextzoo {verb} {example}" for example in examples]
    lines += ["", "Configuration: -c NAME or FILE, repeated; what comes later wins"]
    axes: dict[str, list[str]] = {}
    for name in configs.names():
        axis, _, stem = name.partition("/")
        axes.setdefault(axis, []).append(stem)
    for axis, stems in axes.items():
        lines += _row(f"{axis}/", ", ".join(stems))
    lines += _row("--trust", "let these files, and a checkpoint, import classes from outside this program")
    lines += _row("--import MODULE", "know the heads, backbones and datasets of your own in MODULE.py (repeated)")
    lines += ["", "Run"]
    lines += _row("--run NAME", "the run's folder is runs/NAME; made from data, head and time where not given")
    lines += _row("--ckpt_path", "a .ckpt file; last or best, of the run that --run names or of the newest; or a run")
    if verb != "fit":
        lines += _row("--weights", "instead: an id of the zoo, a run or a file, evaluated by its own protocol")
    fits = verb == "fit"
    chosen = "--model.head NAME (contextzoo heads; --model.head.help NAME), and " if fits else ""
    lines += ["", f"Model: {chosen}--model.X"]
    tasks = PACKAGE / "tasks"
    of_task = _arguments(tasks / "semantic" / "task.py", "SegmentationTask") + _arguments(tasks / "base.py", "Task")
    for name, text in of_task:
        lines += _row(name, text) if fits or name in EVALUATED else []
    lines += ["", "Data: --data NAME (--data.help NAME lists its own options), and --data.X"]
    if verb == "predict":
        lines += _row("predict_folder", "the images to predict; those of the test split where not given")
    for name, text in _arguments(PACKAGE / "data" / "base.py", "DataModule"):
        lines += _row(name, text) if fits or name in LOADED else []
    lines += ["", "Trainer: --trainer.X"]
    for name, text in TRAINER.items():
        lines += _row(name, text) if fits or name in EVALUATING else []
    lines += [
        "",
        "--print_config shows everything that a run would use; --help-all lists every option; --debug tracebacks",
    ]
    return "\n".join(lines)


def _arguments(file: Path, cls: str) -> list[tuple[str, str]]:
    """Name and text of each argument in the docstring of a class, with its default."""
    (node,) = (n for n in ast.parse(file.read_text()).body if isinstance(n, ast.ClassDef) and n.name == cls)
    (init,) = (n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    defaults = dict(zip((arg.arg for arg in init.args.kwonlyargs), init.args.kw_defaults, strict=True))
    said = docstring_parser.parse(ast.get_docstring(node) or "").params
    texts = {each.arg_name: " ".join((each.description or "").split()) for each in said if each.args[0] == "param"}
    return [(name, text + _default(defaults.get(name))) for name, text in texts.items()]


def _default(node: ast.expr | None) -> str:
    if not isinstance(node, ast.Constant) or node.value is None:
        return ""
    text = str(node.value)
    return f" [{text.lower() if isinstance(node.value, bool) else text}]"


def _row(name: str, text: str, width: int = 100) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=f"  {name:<24}", subsequent_indent=" " * 26)
