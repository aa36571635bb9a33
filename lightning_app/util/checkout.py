"""The repository that this program runs from."""

import subprocess
from pathlib import Path


def commit(*, mark_changes: bool = False) -> str | None:
    """The short name of its commit; None where it runs from no repository.

    Args:
        mark_changes: with a plus sign behind it where files differ from the commit.
    """
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--exclude=*"]
    try:
        done = subprocess.run([*command, *["--dirty=+"] * mark_changes], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
