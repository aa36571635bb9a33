"""Every dataset on a tiny fake in its true layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.make_fakes import FAKES, FIRST_ROW, HEIGHT, WIDTH
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

import lightning_app.data as datasets
from lightning_app.app import configs
from lightning_app.data import CamVid, FileDataModule, Folder
from lightning_app.data.facts import default_palette, voc_palette
from lightning_app.data.semantic.base import Sample
from lightning_app.data.semantic.check import check
from lightning_app.util.errors import InputError

CROP = (16, 20)
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...], dict[str, int]]] = {
    # class, options, train ids of FIRST_ROW, images per stage
    "camvid": ("CamVid", {"test_split": "val"}, (0, 5, 10, 255), {"train": 5, "val": 3, "test": 3}),
    "cityscapes": ("Cityscapes", {}, (0, 4, 18, 255, 255), {"train": 4, "val": 2, "test": 2}),
    "ade20k": ("ADE20K", {}, (0, 74, 149, 255), {"train": 4, "val": 2, "test": 2}),
    "pascal_voc": ("PascalVOC", {}, (0, 7, 20, 255), {"train": 3, "val": 2, "test": 2}),
    "pascal_voc trainaug": (
        "PascalVOC",
        {"train_split": "trainaug"},
        (0, 7, 20, 255),
        {"train": 5, "val": 2, "test": 2},
    ),
    "pascal_context": ("PascalContext", {}, (0, 29, 58, 255), {"train": 3, "val": 2, "test": 2}),
    "pascal_context 60": ("PascalContext", {"classes": 60}, (1, 30, 59, 0), {"train": 3, "val": 2, "test": 2}),
    "coco_stuff_164k": ("COCOStuff", {}, (0, 11, 170, 255), {"train": 4, "val": 2, "test": 2}),
    "coco_stuff_10k": ("COCOStuff", {"version": "10k"}, (0, 11, 170, 255), {"train": 3, "val": 2, "test": 2}),
    "folder": ("Folder", {"test_split": "val"}, (0, 1, 2, 255), {"train": 4, "val": 2, "test": 2}),
}


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fakes")
    for name, make in FAKES.items():
        if name == "coco_stuff_10k":
            pytest.importorskip("scipy")
        make(root / name)
    return root


def build(fakes: Path, case: str, **options: Any) -> FileDataModule:
    cls, own, _, _ = CASES[case]
    defaults = {"crop_size": CROP, "batch_size": 2, "num_workers": 0}
    return getattr(datasets, cls)(root=fakes / case.split()[0], **(defaults | own | options))


def sample(module: FileDataModule, stage: Any, index: int = 0) -> Sample:
    found = module.dataset(stage)[index]
    assert not isinstance(found, InputError), found
    return found


def test_every_dataset_has_a_case_and_a_configuration() -> None:
    concrete = {cls for cls in vars(datasets).values() if isinstance(cls, type) and issubclass(cls, FileDataModule)}
    concrete -= {FileDataModule}
    assert {cls.__name__ for cls in concrete} == {cls for cls, *_ in CASES.values()}
    for cls in concrete:
        assert f"class_path: {cls.__name__}\n" in configs.find(f"data/{cls.__module__.rpartition('.')[2]}").read_text()


@pytest.mark.parametrize("case", CASES)
def test_facts_fit_together(fakes: Path, case: str) -> None:
    module = build(fakes, case)
    assert len(module.palette) == len(module.class_names) == len(set(module.class_names)) == module.num_classes
    assert set(module.facts.label_map.values()) - {module.ignore_index} == set(range(module.num_classes))


@pytest.mark.parametrize("case", CASES)
def test_masks_become_train_ids(fakes: Path, case: str) -> None:
    _, _, expected, lengths = CASES[case]
    module = build(fakes, case)
    assert {stage: len(module.dataset(stage)) for stage in lengths} == lengths
    found = sample(module, "val")
    assert tuple(found["mask"][0, : len(expected)].tolist()) == expected
    assert found["image"].shape == (3, HEIGHT, WIDTH)
    assert found["mask"].shape == found["size"] == (HEIGHT, WIDTH)
    assert len(FIRST_ROW[case.split()[0]]) == len(expected)


@pytest.mark.parametrize("case", CASES)
def test_batches_are_what_a_step_expects(fakes: Path, case: str) -> None:
    module = build(fakes, case)
    module.setup("fit")
    batches = [module.on_after_batch_transfer(batch, 0) for batch in module.train_dataloader()]
    assert len(batches) == CASES[case][3]["train"] // 2
    for batch in batches:
        assert batch.image.shape == (2, 3, *CROP)
        assert batch.image.dtype == torch.float32
        assert 0 <= batch.image.min() < batch.image.max() <= 1
        assert batch.mask.shape == (2, *CROP)
        assert batch.mask.dtype == torch.int64
        assert set(batch.mask.unique().tolist()) <= {*range(module.num_classes), module.ignore_index}
    (first, *_) = module.val_dataloader()
    assert first.mask.shape == (1, HEIGHT, WIDTH)
    assert (module.root / first.names[0]).is_file()


@pytest.mark.parametrize("case", CASES)
def test_fakes_pass_the_check(fakes: Path, case: str) -> None:
    blank_test = case == "cityscapes"  # whose public test labels hold nothing but void
    findings = check(build(fakes, case, **({"test_split": "test"} if blank_test else {})))
    assert [(each.problem, each.fatal) for each in findings] == [("Nothing labelled", False)] * blank_test


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_split_is_named_with_the_right_one(fakes: Path, case: str) -> None:
    with pytest.raises(InputError, match=r'has no split "trian"\. Did you mean "train.*"\? \(one of '):
        build(fakes, case, train_split="trian").setup("fit")


class Collector(LightningModule):
    """Hands back what it was asked to predict."""

    def predict_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        return batch


def test_prediction_has_no_masks(fakes: Path) -> None:
    module = build(fakes, "cityscapes", predict_folder=fakes / "camvid" / "val", image_size=(12, 16))
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    batches = trainer.predict(Collector(), datamodule=module)
    assert batches is not None
    assert [batch.names for batch in batches] == [[f"0001TP_{i:06d}.png"] for i in range(3)]
    for batch in batches:
        assert "mask" not in batch
        assert batch.image.shape == (1, 3, 12, 16)
        assert batch.sizes == [(HEIGHT, WIDTH)]


def test_evaluation_resizes_images_but_not_labels(fakes: Path) -> None:
    module = build(fakes, "camvid", image_size=(12, 16), crop_size=None)
    assert sample(module, "val")["image"].shape == (3, 12, 16)
    assert sample(module, "val")["mask"].shape == (HEIGHT, WIDTH)
    assert sample(module, "train")["mask"].shape == (12, 16)


def test_evaluation_batches_only_where_sizes_agree(fakes: Path, tmp_path: Path) -> None:
    assert [len(b) for b in build(fakes, "camvid", val_batch_size=2).val_dataloader()] == [2, 1]
    module = Folder(root=mixed_sizes(tmp_path), classes=["a", "b"], val_batch_size=2, num_workers=0)
    assert [len(b) for b in module.val_dataloader()] == [1, 1]


def mixed_sizes(root: Path) -> Path:
    for i, size in enumerate([(8, 6), (6, 8)]):
        for folder, mode in (("images", "RGB"), ("masks", "L")):
            (root / folder / "val").mkdir(parents=True, exist_ok=True)
            Image.new(mode, size).save(root / folder / "val" / f"{i}.png")
    return root


def test_a_cache_changes_nothing(fakes: Path) -> None:
    plain, cached = (build(fakes, "ade20k", cache=cache).dataset("train") for cache in (False, True))
    for key in [(0, 1), (3, 2)]:
        a, b = plain[key], cached[key]
        assert not isinstance(a, InputError)
        assert not isinstance(b, InputError)
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["mask"], b["mask"])


def test_class_statistics_count_pixels_and_notice_a_changed_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    FAKES["camvid"](tmp_path)
    module = CamVid(tmp_path, num_workers=0)
    expected = torch.zeros(256, dtype=torch.int64)
    for path in (tmp_path / "trainannot").iterdir():
        expected += torch.from_numpy(module.read_mask(path)).flatten().bincount(minlength=256)
    for _ in range(2):  # counted, remembered
        assert module.class_statistics() == expected[:11].tolist()
    Image.new("L", (WIDTH, HEIGHT), 3).save(path)
    assert module.class_statistics()[3] >= HEIGHT * WIDTH
    assert sum(module.class_statistics()) > sum(expected[:11].tolist())


def test_a_missing_root_says_where_to_get_the_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.* does not exist: .*--data\.root \(get CamVid at https://"):
        CamVid(tmp_path / "nowhere").setup("fit")


def test_camvid_without_test_says_what_to_do(fakes: Path) -> None:
    with pytest.raises(InputError, match=r"--data\.test_split val"):
        build(fakes, "camvid", test_split="test").setup("test")


def test_voc_palette_is_the_published_one() -> None:
    assert voc_palette(256)[1] == (128, 0, 0)
    assert voc_palette(256)[20] == (0, 64, 128)
    assert voc_palette(256)[255] == (224, 224, 192)


REAL = Path(__file__).parents[3] / "shared" / "camvid"


@pytest.mark.skipif(not REAL.exists(), reason="needs the real images")
def test_real_camvid() -> None:
    module = CamVid(REAL, test_split="val", num_workers=0)
    assert len(module.dataset("train")) == module.facts.splits["train"]
    assert len(module.dataset("val")) == module.facts.splits["val"]
    assert sample(module, "val")["image"].shape == (3, 360, 480)


def test_the_default_palette_is_light_and_has_a_colour_for_each_class() -> None:
    colours = default_palette(256)
    assert len(set(colours)) == 256
    assert default_palette(3) == ((0, 114, 178), (230, 159, 0), (0, 158, 115))  # Okabe and Ito's
    assert min(max(colour) for colour in colours) >= 75  # none is near black
    # Machado et al., 2009: how red, green and blue look without the cones for red, green or blue
    blindness = {
        "none": np.eye(3),
        "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    }
    for name, matrix in blindness.items():
        seen = ((np.array(colours[:8]) / 255) ** 2.2 @ np.array(matrix).T).clip(0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 9 * np.eye(8)
        assert apart.min() > 0.11, name  # of 1.7 from black to white
