"""Labelled pixels of each class in each validation image: in the truth, as predicted, and where both agree."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from lightning_app.tools.sweep_statistics import Counts, Values, miou, resamples
from lightning_app.util.errors import InputError
from lightning_app.util.files import replacing

FILE = "images.npz"  # in a run's folder


class Images(NamedTuple):
    """What one training makes of each image. Shape: each (N, K)."""

    names: tuple[str, ...]
    truth: Counts
    predicted: Counts
    hits: Counts

    @classmethod
    def read(cls, path: Path) -> Self:
        """What ``write`` wrote.

        Raises:
            InputError: another file.
        """
        content = _read(path)
        return cls(tuple(content["names"].tolist()), *(content[name].astype(np.int64) for name in cls._fields[1:]))

    def write(self, path: Path) -> None:
        """One compressed file."""
        _write(path, self.names, {name: getattr(self, name) for name in self._fields[1:]})


@dataclass(frozen=True)
class SweepCounts:
    """The same of all trainings of a sweep, which saw the same images.

    Args:
        trainings: head and seed -> predicted and hits.
    """

    names: tuple[str, ...]
    truth: Counts
    trainings: Mapping[tuple[str, int], tuple[Counts, Counts]]

    @classmethod
    def of(cls, runs: Iterable[tuple[str, int, Images]]) -> Self:
        """Of head, seed and images of each training; those of one head and seed are folds, and lie side by side.

        Raises:
            InputError: they saw other images.
        """
        folds: dict[tuple[str, int], list[Images]] = {}
        for head, seed, images in runs:
            folds.setdefault((head, seed), []).append(images)
        joined = {key: _side_by_side(parts) for key, parts in folds.items()}
        first = next(iter(joined.values()))
        for (head, seed), images in joined.items():
            if images.names != first.names or not np.array_equal(images.truth, first.truth):
                raise InputError(f"{head} seed {seed} was validated on other images than the rest: train it anew")
        return cls(first.names, first.truth, {key: (each.predicted, each.hits) for key, each in joined.items()})

    @classmethod
    def read(cls, path: Path) -> Self:
        """What ``write`` wrote.

        Raises:
            InputError: another file.
        """
        content = _read(path)
        keys = [name.removesuffix("/hits") for name in content if name.endswith("/hits")]
        trainings = {
            (key.rpartition("-")[0], int(key.rpartition("-")[2])): (
                content[f"{key}/predicted"].astype(np.int64),
                content[f"{key}/hits"].astype(np.int64),
            )
            for key in keys
        }
        return cls(tuple(content["names"].tolist()), content["truth"].astype(np.int64), trainings)

    def write(self, path: Path) -> None:
        """One compressed file, the same bytes for the same counts."""
        columns = {"truth": self.truth}
        for (head, seed), (predicted, hits) in sorted(self.trainings.items()):
            columns |= {f"{head}-{seed}/predicted": predicted, f"{head}-{seed}/hits": hits}
        _write(path, self.names, columns)

    def scores(self, weights: Values | None = None) -> dict[str, list[Values]]:
        """mIoU of each head, one for each seed.

        Shape: weights (S, N) -> (S,) each.
        """
        weights = np.ones((1, len(self.names))) if weights is None else weights
        found: dict[str, list[Values]] = {}
        for (head, _), (predicted, hits) in sorted(self.trainings.items()):
            found.setdefault(head, []).append(miou(weights, self.truth, predicted, hits))
        return found

    def means(self) -> dict[str, list[float]]:
        """mIoU of each head over all images, one for each seed."""
        return {head: [float(value[0]) for value in values] for head, values in self.scores().items()}

    def resampled(self) -> dict[str, list[Values]]:
        """The same in each bootstrap sample of the images."""
        return self.scores(resamples(len(self.names)))


def _side_by_side(parts: list[Images]) -> Images:
    names = [name for part in parts for name in part.names]
    order = sorted(range(len(names)), key=names.__getitem__)
    columns = (np.concatenate([part[place] for part in parts])[order] for place in (1, 2, 3))
    return Images(tuple(names[place] for place in order), *columns)


def _read(path: Path) -> dict[str, Any]:
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no counts of images ({error}): remove it, and they are counted anew") from None


def _write(path: Path, names: Iterable[str], columns: Mapping[str, Counts]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        small: dict[str, Any] = {name: each.astype(np.uint32) for name, each in columns.items()}
        np.savez_compressed(file, names=np.array(list(names)), **small)
