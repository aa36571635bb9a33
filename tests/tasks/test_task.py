"""What a task says of itself: reports, drawings, batches of many sizes, losses by name, checkpoints of before."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from commands import PROBE, run
from tiny import CLASSES, NoiseData, tiny_task, tiny_trainer

from lightning_app.data.semantic.base import SemanticBatch, collate
from lightning_app.heads.base import Auxiliary, Outputs
from lightning_app.tasks.report import Best, Report
from lightning_app.tasks.semantic.metrics import Scores
from lightning_app.tasks.semantic.summary import best_validation, report_of
from lightning_app.tasks.semantic.task import SegmentationTask

SIZES = [(20, 30), (32, 48), (9, 40)]


def of_sizes() -> SemanticBatch:
    """Three images of one size, whose labels differ."""
    dice = torch.Generator().manual_seed(0)
    masks = [torch.randint(0, 3, size, generator=dice).byte() for size in SIZES]
    images = torch.randint(0, 256, (3, 3, 32, 48), generator=dice).byte()
    samples = [
        {"image": image, "mask": mask, "name": f"{place}.png", "size": size}
        for place, (image, mask, size) in enumerate(zip(images, masks, SIZES, strict=True))
    ]
    batch = collate(samples)  # type: ignore[arg-type]
    assert isinstance(batch, SemanticBatch)
    moved: SemanticBatch = NoiseData().on_after_batch_transfer(batch, 0)
    return moved


def test_every_image_of_a_batch_is_predicted_and_counted_at_its_own_size() -> None:
    task, batch = tiny_task().eval(), of_sizes()
    with torch.no_grad():
        together = task.predict(batch)
        alone = [task.predict(each)[0] for each in batch.singles()]
    assert [tuple(classes.shape) for classes in together] == SIZES
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a, b)
    task.update("test", batch, together)
    assert int(task.test_metrics.confusion.sum()) == sum(height * width for height, width in SIZES)
    assert [drawing.photograph.shape[:2] for drawing in task.draw(batch, together)] == SIZES
    assert [drawing.masks["ground_truth"].shape for drawing in task.draw(batch, together)] == SIZES


def test_an_auxiliary_output_names_its_own_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = tiny_task(), of_sizes()
    batch = replace(batch, mask=torch.zeros(3, 32, 48, dtype=torch.int64))
    logits = torch.zeros(3, 3, 32, 48)
    sides = (Auxiliary(logits, 0.5), Auxiliary(torch.zeros(3, 3), 0.1, "presence"), Auxiliary(logits, 0.25))
    monkeypatch.setattr(task.network, "outputs", lambda images: Outputs(logits, sides))
    terms = task.losses(batch)
    ln3, ln2 = torch.tensor(3.0).log(), torch.tensor(2.0).log()
    torch.testing.assert_close(
        terms, {"cross_entropy": ln3, "auxiliary": 0.75 * ln3, "presence": 0.1 * ln2}, check_dtype=False
    )


def test_the_task_chooses_the_best_checkpoint_unless_a_monitor_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(f"fit {PROBE} --trainer.max_epochs 1 --run a") == 0
    saver = yaml.safe_load(Path("runs/a/config.yaml").read_text())["trainer"]["callbacks"][0]["init_args"]
    assert (saver["monitor"], saver["mode"]) == (SegmentationTask.monitor, SegmentationTask.mode) == ("val/mIoU", "max")
    own = "--trainer.callbacks=ModelCheckpoint --trainer.callbacks.filename best --trainer.callbacks.monitor val/loss"
    assert run(f"fit {PROBE} --trainer.max_epochs 1 {own} --run b") == 0
    saver = yaml.safe_load(Path("runs/b/config.yaml").read_text())["trainer"]["callbacks"][0]["init_args"]
    assert (saver["monitor"], saver["mode"]) == ("val/loss", "min")


def test_scores_that_a_checkpoint_of_before_keeps_are_a_report() -> None:
    scores = Scores(torch.tensor([[3, 1], [0, 4]]), images=2, ignored=0.5)
    before = {"epoch": 3, "scores": scores._asdict()}
    best = best_validation({"callbacks": {"ClassTable": before}, "hyper_parameters": {"class_names": ["a", "b"]}})
    assert best == Best(3, report_of(scores, ["a", "b"]))
    again = best_validation({"callbacks": {"ClassTable": best.state()}})
    assert again == best
    assert best_validation({"callbacks": {}}) is None


def test_weights_and_averages_of_before_load_by_the_networks_new_name() -> None:
    task = tiny_task()
    now = {
        name: torch.rand_like(each) if each.is_floating_point() else each for name, each in task.state_dict().items()
    }
    before = {name.replace("network.", "segmentor.", 1): each for name, each in now.items()}
    assert before.keys() != now.keys()
    task.load_state_dict(before)
    average = torch.optim.swa_utils.AveragedModel(tiny_task())
    average.load_state_dict({f"module.{name}": each for name, each in before.items()} | {"n_averaged": torch.tensor(1)})
    for name, each in now.items():
        assert torch.equal(task.state_dict()[name], each)
        assert torch.equal(average.module.state_dict()[name], each)


def test_a_report_begins_anew_and_less_can_be_better(tmp_path: Path) -> None:
    task = tiny_task()
    trainer = tiny_trainer(tmp_path, callbacks=[])
    for _ in range(2):
        trainer.test(task, NoiseData(), verbose=False)
        assert task.reports["test"].counts["images"] == 5
    assert task.reports["test"].names == list(CLASSES)
    better, worse = Report({"mIoU": 0.5}), Report({"mIoU": 0.4})
    assert task.is_better(better, worse)
    task.mode = "min"  # type: ignore[misc]
    assert task.is_better(worse, better)
