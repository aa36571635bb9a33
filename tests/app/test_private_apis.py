"""What the package uses of other libraries without their promise: here, and here alone, a new release fails.

Each was seen in the version of ``SEEN``. Where one is gone, look for a public way first.
"""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from jsonargparse import ArgumentParser, _common, set_parsing_settings
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar, WeightAveraging
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_only
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torchvision.transforms.v2 import Transform

from lightning_app.app.training import SAID
from lightning_app.tasks.semantic.task import SegmentationTask

PACKAGE = Path(__file__).parents[2] / "lightning_app"
SEEN: Final = "jsonargparse 4.53.0, Lightning 2.6.6, PyTorch 2.14.1"
PRIVATE: Final = {  # file -> its private names of other libraries
    "app/command_line.py": {"_option_string_actions"},  # the options, for "Did you mean"; the help of a head
    "app/trust.py": {"_common"},  # parsing_settings, to put them back after a command
    "backbones/mobilenet.py": {"_stage_out_idx"},  # of timm's features, the stages that are levels
    "export/aoti.py": {"_inductor"},  # torch documents these two names of it, and gives no others
    "export/export.py": {"_config"},  # of torch.fx, see its use there
    "export/pt2.py": {"_guards_code"},  # of an exported program, see its use there
    "export/recording.py": {"_assert_scalar"},  # of ATen, see its use there
    "kernels/products.py": {"_linear_pointwise"},  # used where it is, see BUILT there
    "tasks/instance/boxes.py": {"_utils"},  # torchvision's BoxCoder and Matcher, of which its detectors are made
    "tasks/instance/network.py": {"_apply"},
    "tools/bench_timing.py": {"_scaled_dot_product_flash_attention_for_cpu"},  # of ATen, see its use there
    "weights/costs.py": {"_subclasses"},  # where torch documents FakeTensorMode
    "tasks/network.py": {"_apply"},  # to keep constants exact after a cast
}
OVERRIDDEN: Final = {  # class -> methods of a library's class that are private there
    "PhotometricJitter": {"_transformed_types"},  # torchvision's way to say that masks keep their colours
    "Progress": {"_get_train_description"},  # Lightning's bar counts epochs from 0
    "InstanceSegmentor": {"_apply"},
    "Network": {"_apply"},
    "PaddedFirst": {"_attn"},  # timm's Swin rolls before it pads
    "PlainViT": {"_pos_embed"},  # timm resizes positions in another way
}
OF_PYTHON: Final = {"_abc_impl", "_backward_cls", "_is_protocol"}  # of abc, torch.autograd and typing
PUBLIC: Final = {"_asdict", "_exit", "_replace"}  # documented, in spite of their names


def sources() -> Iterator[Path]:
    """Every module that imports anywhere: Triton's kernels want its library."""
    return (path for path in PACKAGE.rglob("*.py") if path.stem not in ("__init__", "__main__", "criss_cross_triton"))


def private_names(path: Path) -> Iterator[str]:
    """Names with one underscore in front that a file takes from objects or modules that are not its own."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(("lightning_app", "zoo")):
            names = [alias.name for alias in node.names] + (node.module or "").split(".")
        elif isinstance(node, ast.Import):
            names = [word for alias in node.names for word in alias.name.split(".")]
        elif isinstance(node, ast.Attribute) and not (
            isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "ctx")
        ):
            names = [node.attr]
        else:
            continue
        yield from (name for name in names if re.match(r"_[a-z]", name) and name not in PUBLIC)


def test_no_other_private_names_are_used() -> None:
    own = {
        name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in ([node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else [])
    } | {path.stem for path in PACKAGE.rglob("*.py")}
    found = {
        path.relative_to(PACKAGE).as_posix(): names
        for path in PACKAGE.rglob("*.py")
        if (names := set(private_names(path)) - (own - {"_apply"}))
    }
    assert found == PRIVATE


def test_no_other_private_methods_are_overridden() -> None:
    missing = () if find_spec("gradio") else ("app_page",)  # an extra that development does not bring
    modules = [
        import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
        for path in sources()
        if path.stem not in missing
    ]
    classes = {cls for module in modules for cls in vars(module).values() if isinstance(cls, type)}
    found: dict[str, set[str]] = {}
    for cls in classes:
        if not cls.__module__.startswith("lightning_app."):
            continue
        theirs = {
            name for base in cls.__mro__[1:] if not base.__module__.startswith("lightning_app.") for name in vars(base)
        }
        if names := {name for name in vars(cls).keys() & theirs if re.match(r"_[a-z]", name)} - OF_PYTHON:
            found[cls.__name__] = names
    assert found == OVERRIDDEN
    assert "_get_train_description" in vars(RichProgressBar), SEEN
    assert "_apply" in vars(torch.nn.Module), SEEN
    assert "_transformed_types" in vars(Transform), SEEN


def test_parsing_settings_are_a_dictionary_that_can_be_put_back() -> None:
    before = dict(_common.parsing_settings)
    set_parsing_settings(import_path_denylist=["*"])
    assert _common.parsing_settings != before, SEEN
    _common.parsing_settings.update(before)
    assert _common.parsing_settings == before
    assert "import_path_verdicts" in before, SEEN


def test_a_parser_knows_its_options_and_what_a_help_leaves_out() -> None:
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(SegmentationTask, "model")
    options = parser._option_string_actions
    assert "--model.lr" in options, SEEN
    for part in ("head", "auxiliary"):
        assert isinstance(options[f"--model.{part}.help"].sub_add_kwargs, dict), SEEN  # type: ignore[attr-defined]


def test_subcommands_know_their_parsers() -> None:
    parser = ArgumentParser()
    verbs = parser.add_subcommands()
    fit = ArgumentParser()
    verbs.add_subcommand("fit", fit)
    assert verbs.choices["fit"] is fit, SEEN


def test_a_trainer_counts_batches() -> None:
    loop: Any = Trainer(logger=False, enable_checkpointing=False).fit_loop.epoch_loop
    for progress in (loop.batch_progress, loop.val_loop.batch_progress):
        assert (progress.total.completed, progress.current.completed) == (0, 0), SEEN
    assert isinstance(getattr(rank_zero_only, "rank", 0), int), SEEN


def test_averaged_weights_lie_beside_those_that_were_trained() -> None:
    source = Path(import_module(WeightAveraging.__module__).__file__ or "").read_text()
    assert 'checkpoint["current_model_state"]' in source, SEEN


def test_schedules_keep_what_a_resumed_run_changes() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    assert {"base_lrs", "_last_lr"} <= LambdaLR(optimizer, lambda step: 1.0).state_dict().keys(), SEEN
    schedule = OneCycleLR(optimizer, 0.1, total_steps=3)
    assert {"total_steps", "_schedule_phases", "base_lrs", "_last_lr"} <= schedule.state_dict().keys(), SEEN
    assert {"lr", "initial_lr", "max_lr", "min_lr"} <= optimizer.param_groups[0].keys(), SEEN


WHERE: Final = {  # the modules that say what a command leaves out
    "LightningCLI's args parameter": "lightning.pytorch.cli",
    ".*LeafSpec": "torch.utils._pytree",
    ".*find the monitored key": "lightning.pytorch.callbacks.model_checkpoint",
    ".*does not have many workers": "lightning.pytorch.trainer.connectors.data_connector",
    ".*in eval mode at the start of training": "lightning.pytorch.loops.fit_loop",
    "Attribute 'backbone' is an instance of": "lightning.pytorch.utilities.parsing",
    ".*exists and is not empty": "lightning.pytorch.callbacks.model_checkpoint",
    "The dirpath has changed": "lightning.pytorch.callbacks.model_checkpoint",
    "The number of training batches": "lightning.pytorch.loops.fit_loop",
    ".*callbacks used to create the checkpoint need": "lightning.pytorch.trainer.call",
}


def texts(module: str) -> Iterator[str]:
    """Every text of a module, with ``backbone`` where a value is put in."""
    for node in ast.walk(ast.parse(Path(import_module(module).__file__ or "").read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else _filled(part) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _filled(part: ast.expr) -> str:
    return "'backbone'" if isinstance(part, ast.FormattedValue) and part.conversion == ord("r") else "backbone"


@pytest.mark.parametrize("said", SAID)
def test_what_is_left_out_is_still_said(said: str) -> None:
    assert any(re.match(said, text, re.DOTALL | re.IGNORECASE) for text in texts(WHERE[said])), SEEN
