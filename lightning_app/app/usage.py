"""Help that a person can read: what a training command takes, from the docstrings, without importing torch."""

import ast
import inspect
import textwrap
from collections.abc import Sequence
from pathlib import Path

import docstring_parser

from lightning_app.app import configs, which_task
from lightning_app.app.arguments import with_config_paths
from lightning_app.registry import DEFAULT_TASK, TASKS

PACKAGE = Path(__file__).parents[1]
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


def usage(verb: str, what: str, args: Sequence[str] = ()) -> str:
    """The page that ``contextzoo VERB --help`` prints.

    Args:
        args: what was typed besides, which may say a task.
    """
    slug = which_task.said(*with_config_paths(args)) or DEFAULT_TASK
    task, base = _class(_file(slug), slug), _class(PACKAGE / "tasks" / "base.py", "Task")
    of_task = {name: text for node in (task, base) for name, text in _arguments(node)}
    lines = [f"contextzoo {verb}: {what}", ""]
    lines += [f"  contextzoo {verb} {example}" for example in _examples(verb, slug, head="head" in of_task)]
    lines += ["", "Configuration: -c NAME or FILE, repeated; what comes later wins"]
    axes: dict[str, list[str]] = {}
    for name in configs.names():
        axis, _, stem = name.partition("/")
        if axis != "recipes" or _is_of(stem, slug):
            axes.setdefault(axis, []).append(stem)
    for axis, stems in axes.items():
        lines += _row(f"{axis}/", ", ".join(stems))
    lines += _row("--trust", "let these files, and a checkpoint, import classes from outside this program")
    lines += _row("--import MODULE", "know your own heads, backbones, datasets and tasks in MODULE.py (repeated)")
    lines += ["", "Run"]
    lines += _row("--task NAME", f"{', '.join(TASKS)}; follows from -c, a checkpoint or weights that say it [{slug}]")
    lines += _row("--run NAME", "the run's folder is runs/NAME; made from data, head and time where not given")
    lines += _row("--ckpt_path", "a .ckpt file; last or best, of the run that --run names or of the newest; or a run")
    if verb != "fit":
        lines += _row("--weights", "instead: an id of the zoo, a run or a file, evaluated by its own protocol")
    fits = verb == "fit"
    chosen = "--model.head NAME (contextzoo heads; --model.head.help NAME), and " if fits and "head" in of_task else ""
    lines += ["", f"Model: {chosen}--model.X"]
    evaluated = _evaluated(task) or _evaluated(base)
    for name, text in of_task.items():
        lines += _row(name, text) if fits or name in evaluated else []
    lines += ["", "Data: --data NAME (--data.help NAME lists its own options), and --data.X"]
    if verb == "predict":
        lines += _row("predict_folder", "the images to predict; those of the test split where not given")
    for name, text in _arguments(_class(PACKAGE / "data" / "base.py", "DataModule")):
        lines += _row(name, text) if fits or name in LOADED else []
    lines += ["", "Trainer: --trainer.X"]
    for name, text in TRAINER.items():
        lines += _row(name, text) if fits or name in EVALUATING else []
    lines += [
        "",
        "--print_config shows everything that a run would use; --help-all lists every option; --debug tracebacks",
    ]
    return "\n".join(lines)


def _examples(verb: str, slug: str, *, head: bool) -> list[str]:
    """What may stand behind a verb."""
    if verb == "predict":
        return ["--ckpt_path best --data.predict_folder PHOTOS"]
    data = "CamVid" if slug == DEFAULT_TASK else "NAME"
    if verb != "fit":
        return ["--ckpt_path best", f"--ckpt_path runs/NAME/checkpoints/best.ckpt --data {data} --data.root DIR"]
    recipes = [name for name in configs.names() if name.startswith("recipes/") and _is_of(name[8:], slug)]
    recipe = next((name for name in recipes if name.endswith("_cpu")), recipes[0] if recipes else None)
    start = f"-c {recipe} --data.root DIR" if recipe else f"--task {slug} --data {data}"
    return [start, *([f"{start} --model.head CCNet --model.head.recurrence 3"] if head else []), "--ckpt_path last"]


def _is_of(recipe: str, slug: str) -> bool:
    """Whether a recipe is of a task: it lies in the folder of that name, but for those of the default one."""
    folder = recipe.rpartition("/")[0]
    return folder == slug or (not folder and slug == DEFAULT_TASK)


def _file(slug: str) -> Path:
    """The module of a task, which is imported where it is the user's own."""
    return TASKS.file(slug) or Path(inspect.getfile(TASKS[slug]))


def _class(file: Path, name: str) -> ast.ClassDef:
    """The class in a file that is called ``name``, or registered by that."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef):
            slugs = [each.args[0].value for each in node.decorator_list if _registers(each)]  # type: ignore[attr-defined]
            if name in (node.name, *slugs):
                return node
    raise LookupError(f"{file} has no {name}")


def _registers(decorator: ast.expr) -> bool:
    if not isinstance(decorator, ast.Call) or not isinstance(decorator.func, ast.Attribute):
        return False
    return decorator.func.attr == "register" and [type(each) for each in decorator.args] == [ast.Constant]


def _evaluated(node: ast.ClassDef) -> Sequence[str]:
    """What of a model can be changed after its training."""
    for each in node.body:
        names = (
            each.targets if isinstance(each, ast.Assign) else [each.target] if isinstance(each, ast.AnnAssign) else []
        )
        if [ast.unparse(name) for name in names] == ["evaluated"]:
            found: Sequence[str] = ast.literal_eval(each.value)  # type: ignore[attr-defined]
            return found
    return ()


def _arguments(node: ast.ClassDef) -> list[tuple[str, str]]:
    """Name and text of each argument in the docstring of a class, with its default."""
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
