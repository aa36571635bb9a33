"""The command line: finds the verb, imports no more than it needs, and turns errors into one line."""

import importlib
import os
import sys

from lightning_app import __version__
from lightning_app.app import own_modules
from lightning_app.util.errors import InputError, Stopped, closest, input_error

TRAINING = {
    "fit": "train a backbone with context heads or blocks",
    "validate": "evaluate on the validation split",
    "test": "evaluate on the test split",
    "predict": "write predictions for images",
}
TOOLS = {
    "demo": ("lightning_app.tools.demo", "see what context is for, in two minutes and one picture"),
    "heads": ("lightning_app.tools.listing", "list the context heads"),
    "blocks": ("lightning_app.tools.listing", "list the context blocks"),
    "data": ("lightning_app.tools.data", "check a dataset, or show its statistics"),
    "bench": ("lightning_app.tools.bench", "measure cost and speed of heads and blocks"),
    "probe": ("lightning_app.tools.probe", "measure what each head can see"),
    "sweep": ("lightning_app.tools.sweep", "train one recipe with many heads, and compare them"),
    "cache": ("lightning_app.tools.cache", "show or remove the features that model.feature_cache keeps"),
    "infer": ("lightning_app.tools.infer", "look at photographs with pretrained weights of any task"),
    "segment": ("lightning_app.tools.segment", "segment photographs, folders and videos with pretrained weights"),
    "explain": ("lightning_app.tools.explain", "draw where the answer at one pixel comes from"),
    "app": ("lightning_app.tools.app", "see in the browser what weights see, and click to see why"),
    "export": ("lightning_app.tools.export", "write weights as ONNX, torch.export or AOTInductor, and verify it"),
    "zoo": ("zoo.__main__", "list, download and verify pretrained weights"),
}

ELSEWHERE = {  # what other programs call these commands, and what people look for
    "train": 'Did you mean "fit"?',
    "training": 'Did you mean "fit"?',
    "resume": 'Did you mean "fit --ckpt_path last"?',
    "finetune": 'Did you mean "fit --model.weights ID"?',
    "val": 'Did you mean "validate"?',
    "eval": 'Did you mean "validate", or "test"?',
    "evaluate": 'Did you mean "validate", or "test"?',
    "inference": 'Did you mean "infer", or "predict" for a whole dataset?',
    "detect": 'Did you mean "infer"?',
    "pose": 'Did you mean "infer"?',
    "attention": 'Did you mean "explain"?',
    "download": 'Did you mean "zoo download"?',
    "list": 'Did you mean "zoo list"?',
    "onnx": 'Did you mean "export --to onnx"?',
    "deploy": 'Did you mean "export"?',
    "models": 'Did you mean "zoo list", or "heads"?',
    "weights": 'Did you mean "zoo list"?',
    "publish": 'Did you mean "zoo publish"?',
    "check": 'Did you mean "data check"?',
    "stats": 'Did you mean "data stats"?',
    "benchmark": 'Did you mean "bench"?',
}


def main(args: list[str] | None = None) -> int:
    """Run one command; returns the exit status (0 fine, 1 found problems, 2 bad input)."""
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    try:
        return _run(own_modules.import_typed(args))
    except BrokenPipeError:  # the reader of our output has gone, as in `contextzoo heads | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        return 130
    except Stopped as stop:
        if stop.line:
            print(stop.line, file=sys.stderr)
        return int(str(stop.code))
    except ValueError as error:  # an InputError is one; jsonargparse wraps a constructor's in one of its own
        cause = input_error(error)
        if debug or cause is None:
            raise
        print(cause, file=sys.stderr)
        return 2


def _run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    verb, rest = args[0], args[1:]
    if verb == "--version":
        print(f"contextzoo {__version__}")
        return 0
    if verb in TRAINING:
        if {"-h", "--help"} & set(rest):
            from lightning_app.app.usage import usage

            print(usage(verb, TRAINING[verb], rest))
            return 0
        from lightning_app.app.training import train

        return train(verb, ["--help" if arg == "--help-all" else arg for arg in rest])
    if [verb, *rest[:1]] == ["zoo", "publish"]:
        from lightning_app.tools import publish

        return publish.main(rest[1:])
    if [verb, *rest[:1]] == ["zoo", "convert"]:
        from lightning_app.tools import convert

        return convert.main(rest[1:])
    if verb in TOOLS:
        tool = importlib.import_module(TOOLS[verb][0])
        return int(tool.main([verb, *rest] if TOOLS[verb][0].endswith("listing") else rest))
    meant = {known: f'Did you mean "{known}"?' for known in (*TRAINING, *TOOLS)} | ELSEWHERE
    hint = "".join(f" {meant[close]}" for close in closest(verb, meant))
    raise InputError(f'Unknown command "{verb}".{hint} (contextzoo --help)')


def _overview() -> str:
    verbs = TRAINING | {verb: text for verb, (_, text) in TOOLS.items()}
    lines = [f"  {verb:<10}{text}" for verb, text in verbs.items()]
    return "\n".join(
        [
            "contextzoo: context blocks for semantic and instance segmentation, and pose",
            "",
            "usage: contextzoo COMMAND [--help] ...",
            "",
            *lines,
            "",
            "--import MODULE, to any command: know the heads, backbones, datasets and tasks of your own in MODULE.py",
        ]
    )
