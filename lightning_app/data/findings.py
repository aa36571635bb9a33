"""What is wrong with a dataset's files, in words that tools print."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lightning_app.data.bad_file import BadFile
from lightning_app.data.picture_files import Header
from lightning_app.data.twins import Print, twins

Problem = tuple[str, str, str, bool]  # file, what is wrong, fix, fatal
SHOWN = 5  # files named per problem


@dataclass(frozen=True)
class Finding:
    """One problem of one split and the files that have it.

    ``fatal`` ones stop a training or make its score worthless; the others are handled and only said.
    """

    split: str
    problem: str
    files: tuple[str, ...] = ()
    fix: str = ""
    fatal: bool = True

    @property
    def names(self) -> str:
        """The first few files, and how many more there are."""
        more = f" and {len(self.files) - SHOWN} more" if len(self.files) > SHOWN else ""
        return ", ".join(self.files[:SHOWN]) + more

    def __str__(self) -> str:
        if not self.files:
            return f"{self.problem}."
        if ":" in self.problem:
            return f"{self.problem}, {len(self.files)} image{'s' * (len(self.files) > 1)} ({self.names})."
        return f"{self.problem}: {self.names}."


@dataclass(frozen=True)
class Checked:
    """All that was found.

    Args:
        counts: split -> what is there, in words.
        findings: what is wrong.
    """

    counts: Mapping[str, str] = field(default_factory=dict)
    findings: Sequence[Finding] = ()


@dataclass(frozen=True)
class Statistics:
    """A table of a dataset, lines below it, and what of it could not be read."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    lines: Sequence[str] = ()
    faults: Sequence[str] = ()


def grouped(split: str, problems: Iterable[Problem]) -> Iterator[Finding]:
    """Each problem once, with all files that have it."""
    found: dict[tuple[str, str, bool], list[str]] = defaultdict(list)
    for name, problem, fix, fatal in problems:
        found[problem, fix, fatal].append(name)
    for (problem, fix, fatal), names in found.items():
        yield Finding(split, problem, tuple(names), fix, fatal)


def said_sizes(sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Lines on images of these heights and widths."""
    if not sizes:
        return []
    found = Counter(sizes)
    common = ", ".join(f"{width}x{height} ({count})" for (height, width), count in found.most_common(5))
    rest = f" and {len(found) - 5} more" if len(found) > 5 else ""
    heights, widths = zip(*found, strict=True)
    return [
        f"image sizes: {common}{rest}",
        f"width {min(widths)} to {max(widths)}, height {min(heights)} to {max(heights)}",
    ]


def shared(split: str, here: list[Print], there: list[Print]) -> Iterator[Finding]:
    """The pictures of one split that are in another as well, whatever they are called there."""
    fix = "Keep each photo in one split: a score on pictures that were trained on says nothing."
    same: list[str] = []
    alike: list[str] = []
    for first, second in twins(here, there):
        (same if first.digest == second.digest else alike).append(f"{first.name} = {second.name}")
    if same:
        yield Finding(split, "The same photo", tuple(same), fix)
    if alike:
        yield Finding(
            split, "Almost the same photo", tuple(alike), "Look whether they are one photo saved twice.", False
        )


def problems_of(error: BadFile) -> Iterator[Problem]:
    """What is wrong with a file that cannot be used."""
    name = f"{error.path.name} ({error.detail})" if error.detail else error.path.name
    for problem in error.problems:
        yield name, problem, error.fix, True


def handled(header: Header) -> Iterator[tuple[str, str]]:
    """What differs from a plain RGB image and is taken care of."""
    if header.mode in ("L", "LA", "1"):
        yield "Greyscale", "Taken as RGB with three equal channels."
    if header.mode in ("CMYK", "YCCK"):
        yield "CMYK, of printing", "Made RGB without its colour profile: colours differ a little from the print's."
    if header.alpha:
        yield "Alpha channel", "Dropped."
    if header.orientation != 1:
        yield "Rotated by EXIF", "Turned upright; the mask must be upright too."
