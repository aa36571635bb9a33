"""Tables for people: framed on a terminal, plain aligned text of any width where piped."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

PIPED_WIDTH = 240  # wide enough that no cell is cut or folded in a file


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", right: Sequence[str] = ()
) -> None:
    """Print rows of text under ``columns``, those named in ``right`` aligned to the right."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD if console.is_terminal else None)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=not console.is_terminal)
    for row in rows:
        table.add_row(*row)
    console.print(table)
