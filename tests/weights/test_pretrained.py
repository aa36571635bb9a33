"""Weights of a run, of a file and of a published model: what is loaded, what is said, what is refused."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from data.make_fakes import camvid
from safetensors.torch import load_file, save_file
from tiny import CLASSES, PALETTE
from weights import ENTRY, describe_tiny, fit_camvid, openmmlab_file, write_tiny

import zoo
from lightning_app.app.cli import main
from lightning_app.data.semantic.camvid import FACTS
from lightning_app.tasks.semantic.protocol import EvaluationProtocol
from lightning_app.util.errors import InputError
from lightning_app.weights.description import HEADER
from lightning_app.weights.load import load
from lightning_app.weights.openmmlab.convert import load_checkpoint
from lightning_app.weights.openmmlab.published import evaluation_size, upstream_config
from lightning_app.weights.parts import new_segmentor
from lightning_app.weights.transfer import transfer

EMA = "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The checkpoint of a run with averaged weights."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield fit_camvid(folder, EMA)


def images(height: int = 40, width: int = 56) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_a_published_file_knows_its_classes_and_protocol(tmp_path: Path) -> None:
    tensors = write_tiny(tmp_path / "a.safetensors", protocol={"mode": "slide", "crop": [32, 32], "scales": [1.0, 2.0]})
    model = load(tmp_path / "a.safetensors")
    assert not model.training
    assert model.info is not None
    assert (model.info.name, model.info.classes, model.info.palette) == ("tiny", CLASSES, PALETTE)
    assert model.info.protocol == EvaluationProtocol("slide", crop=(32, 32), scales=(1.0, 2.0))
    assert model.auxiliary is not None
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name
    assert model(images()).shape == (1, 3, 40, 56)


def test_half_precision_loads_as_single(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = write_tiny(path)
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_file(halves, path, {HEADER: json.dumps(describe_tiny())})
    model = load(path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.head.classifier.weight, tensors["head.classifier.weight"].half().float())


def test_a_checkpoint_gives_its_averaged_weights(run: Path) -> None:
    content = torch.load(run, weights_only=True)
    model = load(run)
    assert model.info is not None
    assert model.info.classes == FACTS.classes
    assert model.info.palette == FACTS.palette
    assert model.info.data["class_path"].endswith("CamVid")
    assert "root" not in model.info.data["init_args"]
    assert model.info.name == "tiny/best"
    assert model.info.metrics
    weight = model.head.classifier.weight
    assert torch.equal(weight, content["state_dict"]["network.head.classifier.weight"])
    assert not torch.equal(weight, content["current_model_state"]["network.head.classifier.weight"])


@pytest.mark.parametrize(
    ("part", "spec"),
    [
        ("backbone", {"class_path": "subprocess.Popen", "init_args": {"args": "touch ran"}}),
        ("head", {"class_path": "os.system", "init_args": {"command": "touch ran"}}),
        ("head", {"class_path": "lightning_app.heads.fcn.FCN", "init_args": {"channels": {"class_path": "os.abort"}}}),
        ("backbone", {"class_path": "lightning_app.backbones.timm.TimmBackbone", "init_args": {"nme": "resnet18"}}),
        ("head", {"class_path": "lightning_app.heads.nothing.Nothing"}),
        ("head", "os.getcwd"),
    ],
)
def test_a_header_can_name_nothing_but_parts_of_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, spec: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({}, "a.safetensors", {HEADER: json.dumps(describe_tiny(model=describe_tiny()["model"] | {part: spec}))})
    with pytest.raises(InputError, match="tiny: its model cannot be built"):
        load("a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", b"not at all", "is no safetensors file that can be read"),
        ("a.ckpt", b"not at all", "is not a checkpoint of this program"),
        ("a.pth", b"not at all", r"no weights of the zoo have a file of that name.*zoo list"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}.*{message}"):
        load(tmp_path / name)


def test_a_foreign_safetensors_file_is_named(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a\.safetensors does not say how to rebuild its model"):
        load(tmp_path / "a.safetensors")


def test_tensors_that_do_not_fit_their_description_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = write_tiny(path)
    del tensors["head.classifier.bias"]
    save_file(tensors, path, {HEADER: json.dumps(describe_tiny())})
    with pytest.raises(InputError, match=r"The weights do not fit tiny, .* 1 missing: head\.classifier\.bias"):
        load(path)


def test_an_unknown_id_is_answered_with_the_closest() -> None:
    with pytest.raises(InputError, match=f'Did you mean "{ENTRY}"'):
        load(ENTRY[:-1])
    with pytest.raises(InputError, match=r"nothing\.ckpt: no such file"):
        load("nothing.ckpt")


def test_an_openmmlab_file_is_known_by_its_published_name(tmp_path: Path) -> None:
    path = openmmlab_file(tmp_path)
    entry, model = zoo.get(ENTRY), load(path)
    info = model.info
    assert info is not None
    assert (info.name, info.metrics["mIoU"], info.data["class_path"]) == (ENTRY, entry.figure, "Cityscapes")
    assert (info.classes[0], info.palette[0], len(info.classes)) == ("road", (128, 64, 128), 19)
    assert info.protocol == EvaluationProtocol(fit=(2048, 1024))
    same = load_checkpoint(path, upstream_config(entry))
    assert torch.equal(model(images()), same(images()))
    assert torch.equal(load(path.rename(tmp_path / f"{ENTRY}.pth"))(images()), same(images()))  # as in the cache
    renamed = path.with_name("mine.pth")
    shutil.copy(tmp_path / f"{ENTRY}.pth", renamed)
    with pytest.raises(InputError, match=r"call it ID\.pth"):
        load(renamed)


def test_evaluation_boxes_of_published_models() -> None:
    boxes = {entry.id: evaluation_size(entry) for entry in zoo.list_entries(task="semantic")}
    assert boxes["ccnet_r50-d8_cityscapes-512x1024_40k"] == (2048, 1024)
    assert boxes["ccnet_r50-d8_cityscapes-769x769_40k"] == (2049, 1025)
    assert boxes["ccnet_r50-d8_ade20k-512x512_80k"] == (2048, 512)
    assert all(boxes[entry.id] for entry in zoo.list_entries(task="semantic") if entry.format == "openmmlab")


def of_classes(path: Path, classes: int, **init_args: Any) -> Any:
    """A segmentor like that of the file, of other classes, or with other arguments of its head."""
    config = describe_tiny()["model"]
    config["head"]["init_args"] |= init_args
    return new_segmentor(config, classes, "target")


def test_other_classes_load_all_but_the_classifiers(tmp_path: Path) -> None:
    given = write_tiny(tmp_path / "a.safetensors")
    target = of_classes(tmp_path, 5)
    line = transfer(load(tmp_path / "a.safetensors"), target, 5)
    count = sum(not name.endswith("num_batches_tracked") for name in given)
    assert line == (
        f"Loaded {count - 4}/{count} tensors. "
        "New: head.classifier.{weight,bias}, auxiliary.classifier.{weight,bias} (3 -> 5 classes)."
    )
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, given[name]) == (".classifier." not in name), name


def test_the_same_classes_load_all(tmp_path: Path) -> None:
    given = write_tiny(tmp_path / "a.safetensors")
    target = of_classes(tmp_path, 3)
    assert "New" not in transfer(load(tmp_path / "a.safetensors"), target, 3)
    assert all(torch.equal(tensor, given[name]) for name, tensor in target.state_dict().items())


def test_what_has_no_place_in_the_model_is_said(tmp_path: Path) -> None:
    write_tiny(tmp_path / "a.safetensors")
    config = describe_tiny()["model"] | {"auxiliary": None}
    line = transfer(load(tmp_path / "a.safetensors"), new_segmentor(config, 3, "target"), 3)
    assert line.endswith("Not used: 17 of auxiliary.")


def test_the_backbone_alone_leaves_the_head_as_it_was(tmp_path: Path) -> None:
    given = write_tiny(tmp_path / "a.safetensors")
    target = of_classes(tmp_path, 3)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    count = sum(name.startswith("backbone.") and not name.endswith("num_batches_tracked") for name in given)
    line = transfer(load(tmp_path / "a.safetensors"), target, 3, part="backbone")
    assert line == f"Loaded {count}/{count} tensors of the backbone."
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, (given if name.startswith("backbone.") else before)[name]), name


def test_weights_of_another_model_are_refused_unless_forced(tmp_path: Path) -> None:
    write_tiny(tmp_path / "a.safetensors")
    source = load(tmp_path / "a.safetensors")
    config = describe_tiny()["model"]
    config["backbone"]["init_args"]["name"] = "test_convnext"
    target = new_segmentor(config, 3, "target")
    before = target.state_dict()["head.classifier.weight"].clone()
    with pytest.raises(InputError, match=r"Only \d+/\d+ tensors .* FCN on test_resnet.*--model.weights_force true"):
        transfer(source, target, 3)
    assert torch.equal(target.state_dict()["head.classifier.weight"], before)
    assert transfer(source, target, 3, force=True).startswith("Loaded ")
    with pytest.raises(InputError, match=r"Only 0/\d+ tensors of the backbone are in .* FCN on test_resnet"):
        transfer(source, target, 3, part="backbone")


def test_fit_starts_from_weights_and_a_resumed_run_does_not(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "a.safetensors")
    last = fit_camvid(tmp_path, "--model.weights=a.safetensors", "--model.lr=0").with_name("last.ckpt")
    out = capsys.readouterr().out
    assert "New: head.classifier.{weight,bias} (3 -> 11 classes). Not used: 17 of auxiliary." in out
    tensors = torch.load(last, weights_only=True)["state_dict"]
    name = "backbone.model.conv1.0.weight"
    name = name if f"network.{name}" in tensors else "backbone.model.conv1.weight"
    assert torch.equal(tensors[f"network.{name}"], load_file("a.safetensors")[name])
    (tmp_path / "a.safetensors").unlink()
    assert main(["fit", "--ckpt_path", str(last), "--trainer.max_epochs", "2"]) == 0
    assert "Loaded" not in capsys.readouterr().out
    assert main(["test", "--ckpt_path", str(last), "--data.test_split", "val"]) == 0


def test_measured_beside_published(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    camvid(tmp_path / "camvid")
    typed = ["validate", "--weights", str(run), "--data.root", "camvid", "--data.num_workers", "0"]
    assert main([*typed, "--run", "again"]) == 0
    known = load(run).info
    assert known is not None
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == f"mIoU {known.metrics['mIoU']:.2f} measured here; {known.metrics['mIoU']:.2f} {known.source}"
    assert yaml.safe_load(Path("runs/again/validate.yaml").read_text())["weights"] == str(run)


def test_the_protocol_of_the_weights_is_the_default(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    camvid(tmp_path / "camvid")
    protocol = asdict(EvaluationProtocol("slide", crop=(16, 24), fit=(64, 48)))
    write_tiny(tmp_path / "a.safetensors", classes=FACTS.classes, palette=FACTS.palette, protocol=protocol)
    typed = ["test", "--weights", "a.safetensors", "--data", "CamVid", "--data.root", "camvid"]
    typed += ["--data.test_split", "val", "--data.num_workers", "0", "--run", "again", "--model.protocol.flip", "true"]
    assert main(typed) == 0
    used = yaml.safe_load(Path("runs/again/test.yaml").read_text())["model"]["protocol"]
    assert EvaluationProtocol(
        **{key: tuple(each) if isinstance(each, list) else each for key, each in used.items()}
    ) == replace(EvaluationProtocol("slide", crop=(16, 24), fit=(64, 48)), flip=True)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("test --weights a.safetensors --data CamVid --data.root camvid", "tiny knows 3 classes, the data has 11"),
        ("fit --weights a.safetensors --data CamVid", "fit starts from weights with --model.weights"),
        ("test --weights a.safetensors --data CamVid --model.head CCNet", "leave out --model.head"),
        ("test --weights a.safetensors --ckpt_path last --data CamVid", "not both"),
        (f"test --weights {ENTRY[:-1]} --data CamVid", f'Did you mean "{ENTRY}"'),
        (
            "fit --model.weights nothing.ckpt --data CamVid --data.root camvid --data.batch_size 2",
            "nothing.ckpt: no such file",
        ),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "a.safetensors")
    camvid(tmp_path / "camvid")
    assert main(typed.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
