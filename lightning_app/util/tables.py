"""Tables for people: framed on a terminal, plain aligned text of any width where piped."""

from collections.abc import Iterable, Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 240  # wide enough that no cell is cut or folded in a file


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    title: str = "",
    caption: str = "",
    right: Sequence[str] = (),
) -> None:
    """Print rows of text, which is no markup, under ``columns``; those named in ``right`` are aligned to the right.

    The first column, which names the row, is never folded.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    frame = box.SIMPLE_HEAD if console.is_terminal else None
    table = Table(title=title or None, title_justify="left", caption=caption or None, box=frame)
    for place, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=justify, no_wrap=not place or not console.is_terminal)
    for row in rows:
        table.add_row(*row)
    console.print(table)
