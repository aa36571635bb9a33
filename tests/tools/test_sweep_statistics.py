"""What a sweep's statistics say: against numbers known from elsewhere, and on trainings whose truth is known."""

import json
import math
import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run
from numpy.typing import NDArray
from scipy import stats

from lightning_app.tools.sweep_counts import Images, SweepCounts
from lightning_app.tools.sweep_rankings import published
from lightning_app.tools.sweep_statistics import (
    differences,
    holm,
    miou,
    pooled_deviation,
    resamples,
    smallest,
    spearman,
)
from lightning_app.util.errors import InputError

IMAGES, CLASSES, PIXELS = 40, 3, 1000


def images(accuracy: float, seed: int, difficulty: NDArray[np.float64] | None = None) -> Images:
    """Counts of a model that is right in about that share of the pixels; the truth is the same for every seed."""
    truth_dice, dice = np.random.default_rng(0), np.random.default_rng(seed)
    truth = truth_dice.multinomial(PIXELS, [0.5, 0.3, 0.2], size=IMAGES)
    shares = np.clip(accuracy - 0.3 * truth_dice.random(IMAGES), 0, 1)[:, None]
    hits = dice.binomial(truth, shares)
    wrong = truth - hits
    predicted = hits + np.roll(wrong, 1, axis=1)
    return Images(tuple(f"{number:02}" for number in range(IMAGES)), truth, predicted, hits)


def sweep(accuracies: dict[str, float], seeds: int) -> SweepCounts:
    return SweepCounts.of(
        (head, seed, images(accuracy, 100 * place + seed))
        for place, (head, accuracy) in enumerate(accuracies.items())
        for seed in range(seeds)
    )


def to_fcn(heads: Iterable[str]) -> list[tuple[str, str]]:
    return [(head, "fcn") for head in heads if head != "fcn"]


def test_miou_is_that_of_the_summed_confusion() -> None:
    one = images(0.9, 1)
    truth, predicted, hits = (each.sum(0) for each in one[1:])
    expected = np.mean(hits / (truth + predicted - hits))
    assert miou(np.ones((1, IMAGES)), *one[1:])[0] == pytest.approx(expected)
    twice = np.zeros((1, IMAGES))
    twice[0, 3] = 2
    assert miou(twice, *one[1:])[0] == pytest.approx(
        np.mean(one.hits[3] / (one.truth[3] + one.predicted[3] - one.hits[3]))
    )


def test_a_class_that_is_nowhere_does_not_count() -> None:
    truth, predicted, hits = np.array([[4, 0]]), np.array([[4, 0]]), np.array([[2, 0]])
    assert miou(np.ones((1, 1)), truth, predicted, hits)[0] == pytest.approx(2 / 6)


def test_samples_draw_as_many_images_as_there_are() -> None:
    drawn = resamples(7, 500)
    assert (drawn.sum(1) == 7).all()
    assert drawn.mean() == pytest.approx(1)
    assert drawn.var() == pytest.approx(6 / 7, rel=0.1)


def test_the_bootstrap_error_is_that_of_the_mean_where_the_score_is_a_mean() -> None:
    """One class, unions of one size: mIoU is the mean over images, whose standard error is known."""
    values = np.random.default_rng(1).integers(0, 101, size=(60, 1))
    union = np.full((60, 1), 100)
    scores = miou(resamples(60), union, values, values)
    assert scores.std() == pytest.approx(values.std() / 100 / math.sqrt(60), rel=0.03)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_rank_correlation_is_scipys() -> None:
    dice = np.random.default_rng(0)
    one = {str(number): float(value) for number, value in enumerate(dice.integers(0, 8, 20))}
    other = {str(number): float(value) for number, value in enumerate(dice.integers(0, 8, 25))}
    expected = stats.spearmanr(list(one.values()), list(other.values())[:20]).statistic
    assert spearman(one, other) == (pytest.approx(expected), 20)
    assert math.isnan(spearman({"a": 1.0, "b": 2.0}, one)[0])
    assert math.isnan(spearman(one, dict.fromkeys(one, 1.0))[0])


def test_what_differs_is_found_and_what_does_not_is_not() -> None:
    counts = sweep({"fcn": 0.9, "better": 0.93, "worse": 0.85, **{f"same{n}": 0.9 for n in range(8)}}, seeds=3)
    found = {each.head: each for each in differences(counts.means(), counts.resampled(), to_fcn(counts.means()))}
    assert [head for head, each in found.items() if each.p < 0.05 and each.mean > 0] == ["better"]
    assert [head for head, each in found.items() if each.p < 0.05 and each.mean < 0] == ["worse"]
    assert next(iter(found)) == "better"
    assert found["better"].mean == pytest.approx(np.mean(counts.means()["better"]) - np.mean(counts.means()["fcn"]))


def test_pairs_are_compared_with_each_other() -> None:
    counts = sweep({"a": 0.9, "b": 0.93, **{f"same{n}": 0.9 for n in range(8)}}, seeds=3)
    (found,) = differences(counts.means(), counts.resampled(), [("a", "b"), ("a", "nowhere")])
    assert (found.head, found.other) == ("a", "b")
    assert found.mean == pytest.approx(np.mean(counts.means()["a"]) - np.mean(counts.means()["b"]))
    assert found.p < 0.05


def test_a_head_that_one_seed_of_three_fails_is_not_told_apart() -> None:
    """Others repeat to a thousandth; a head's own seeds say that its mean is worth little."""
    dice = np.random.default_rng(0)
    scores = {head: list(0.6 + 0.001 * dice.standard_normal(3)) for head in ("fcn", *"abcdefghi")}
    scores |= {"fails": [0.6, 0.6, 0.5], "lower": [0.501, 0.5, 0.499]}
    resampled = {head: [np.full(10, value) for value in values] for head, values in scores.items()}
    found = {each.head: each for each in differences(scores, resampled, to_fcn(scores))}
    assert found["fails"].p > 0.05
    assert found["fails"].error == pytest.approx(0.1 / 3, rel=0.1)
    assert found["lower"].p < 0.05


def test_few_seeds_say_nothing() -> None:
    counts = sweep({"fcn": 0.9, "better": 0.99}, seeds=3)
    assert pooled_deviation(counts.means())[1] == 4
    assert differences(counts.means(), counts.resampled(), to_fcn(counts.means())) == []


def test_what_seeds_alone_make_is_not_called_a_difference() -> None:
    """Heads whose seeds scatter by a point, images that all agree: about 5 % of sweeps find any difference at all."""
    dice, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        scores = {head: list(0.6 + 0.01 * dice.standard_normal(3)) for head in ("fcn", *"abcdefghi")}
        resampled = {head: [np.full(10, value) for value in values] for head, values in scores.items()}
        wrong += any(each.p < 0.05 for each in differences(scores, resampled, to_fcn(scores)))
    assert wrong <= 0.1 * 200


def test_the_smallest_difference_is_found_as_often_as_it_says() -> None:
    """A difference of that size, errors as large as they are: in 80 % of draws p * m is below 5 %."""
    errors = [0.004] * 20
    size = smallest(errors)
    draws = size + 0.004 * np.random.default_rng(0).standard_normal(20_000)
    p = 2 * stats.norm.sf(np.abs(draws) / 0.004)
    assert np.mean(p * 20 < 0.05) == pytest.approx(0.8, abs=0.01)


def test_folds_lie_side_by_side() -> None:
    whole = images(0.9, 1)
    parts = [Images(whole.names[part], *(each[part] for each in whole[1:])) for part in (slice(20, 40), slice(0, 20))]
    counts = SweepCounts.of([("fcn", 0, part) for part in parts])
    assert counts.names == whole.names
    assert counts.means()["fcn"] == pytest.approx([float(miou(np.ones((1, IMAGES)), *whole[1:])[0])])


def test_counts_outlive_a_file(tmp_path: Path) -> None:
    counts = sweep({"fcn": 0.9, "nonlocal_net": 0.8}, 2)
    counts.write(tmp_path / "results.npz")
    again = SweepCounts.read(tmp_path / "results.npz")
    assert again.means() == counts.means()
    assert again.names == counts.names
    (tmp_path / "wrong.npz").write_text("no counts")
    with pytest.raises(InputError, match=r"wrong\.npz holds no counts of images"):
        SweepCounts.read(tmp_path / "wrong.npz")


def test_trainings_on_other_images_are_refused() -> None:
    one = images(0.9, 1)
    with pytest.raises(InputError, match="ccnet seed 1 was validated on other images"):
        SweepCounts.of([("fcn", 0, one), ("ccnet", 1, one._replace(names=one.names[::-1]))])


def test_published_rankings_are_the_index() -> None:
    found = published()
    assert found["Cityscapes, R50, 80k (mmsegmentation)"]["fcn"] == 73.61
    assert all(len(ranking) >= 11 for ranking in found.values())


# The report of a sweep


def pretend(folder: Path, accuracies: dict[str, float], seeds: int) -> None:
    """What trainings that have ended and were counted leave behind."""
    for place, (head, accuracy) in enumerate(accuracies.items()):
        for seed in range(seeds):
            counted = images(accuracy, 100 * place + seed)
            content: dict[str, Any] = {
                "head": head,
                "seed": seed,
                "recipe": "recipes/camvid_frozen",
                "options": None,
                "words": [],
                "command": "contextzoo fit",
                "commit": "c0",
                "date": "2026-01-02T03:04:05+00:00",
                "threads": 1,
                "device": "a CPU",
                "resumed": False,
                "minutes": 1.0,
                "mIoU": float(miou(np.ones((1, IMAGES)), *counted[1:])[0]),
                "mAcc": 0.9,
                "parameters": 2_000_000,
                "head_parameters": 500_000 + 1000 * place,
                "gflop": 1.25 + place,
                "image_size": [40, 48],
                "images_per_s": 10.0,
                "peak_memory_mb": 700.0,
                "device_memory_mb": None,
            }
            run_folder = folder / f"{head}-{seed}"
            run_folder.mkdir(parents=True)
            (run_folder / "result.json").write_text(json.dumps(content))
            counted.write(run_folder / "images.npz")


def test_the_page_says_first_what_can_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pretend(Path("sweep"), {"fcn": 0.9, "ccnet": 0.93, "danet": 0.85, "ann": 0.9, "psanet": 0.9, "dmnet": 0.9}, 3)
    assert run("sweep --report sweep") == 0
    for ending in ("json", "npz"):
        Path("sweep", f"results.{ending}").rename(f"kept.{ending}")
    assert run("sweep --report kept.json --to page.md") == 0
    page = Path("page.md").read_text()
    assert page.index("The smallest difference that this can see is") < page.index("| head | seeds | mIoU |")
    assert "| to FCN | 95 % | p (Holm) |" in page
    assert " --per-image --seeds 3" in page  # what is said needs it: the command gives the page again
    assert "Surely above FCN: ccnet. Surely below: danet. The other 3 cannot be told from it." in page
    assert "](page-kept-differences.png)" in page
    assert Path("page-kept-differences.png").read_bytes().startswith(b"\x89PNG")
    assert "## Rankings compared" in page


def test_results_are_taken_in_by_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "take_in_sweep.py"))
    monkeypatch.chdir(tmp_path)
    Path("docs/results").mkdir(parents=True)
    pretend(Path("runs/new"), {"fcn": 0.9, "ccnet": 0.93}, 2)
    pretend(Path("runs/old"), {"fcn": 0.8, "ccnet": 0.7, "danet": 0.6, "ann": 0.9}, 2)
    for name in ("old", "new"):
        assert script["main"]([f"runs/{name}"]) == 0
    assert sorted(path.name for path in Path("docs/results").iterdir()) == [
        "new.json",
        "new.npz",
        "old.json",
        "old.npz",
    ]
    page = Path("docs/results.md").read_text()
    assert "sweep --report docs/results/new.json docs/results/old.json --to docs/results.md`" in page
    assert page.count("have scattered by") == 2
    assert script["main"](["runs/nowhere"]) == 2


def test_figures_of_other_tasks_are_not_counted_by_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pretend(Path("pose"), {"fcn": 0.9}, 1)
    result = json.loads(Path("pose/fcn-0/result.json").read_text())
    result |= {"figure": "AP", "AP": 0.5, "AP50": 0.6, "PCK": 0.7}
    Path("pose/fcn-0/result.json").write_text(json.dumps(result))
    Path("pose/fcn-0/images.npz").unlink()
    assert run("sweep --report pose --per-image") == 2
    assert capsys.readouterr().err == "pose is of AP: --per-image counts pixels of class maps\n"


def test_one_seed_claims_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pretend(Path("sweep"), {"fcn": 0.9, "ccnet": 0.99}, 1)
    assert run("sweep --report sweep") == 0
    page = Path("sweep/results.md").read_text()
    assert "No difference here is said to hold: seeds have not been repeated" in page
    assert "p (Holm)" not in page
    assert "Surely" not in page
