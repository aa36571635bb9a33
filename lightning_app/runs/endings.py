"""Why a training ended that had begun well, in one line."""

import errno
from pathlib import Path
from typing import Final

from torch import distributed

from lightning_app.runs.folders import go_on
from lightning_app.util.errors import causes

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def why_it_ended(error: BaseException, folder: Path | None) -> str | None:
    """What the machine did to a training in ``folder``, as its error tells; None for any other error."""
    how = f" Go on with {go_on(folder)}" if folder and (folder / "checkpoints" / "last.ckpt").exists() else ""
    for cause in causes(error):
        if folder and isinstance(cause, FileNotFoundError) and not (folder / "config.yaml").exists():
            return f"{folder} was deleted or moved while it was being written: nothing more was saved"
        if isinstance(cause, OSError) and cause.errno in FULL:
            return f"{cause.filename or folder}: {cause.strerror}. Free some space.{how}"
        if isinstance(cause, RuntimeError) and str(cause).startswith("DataLoader worker"):
            return (
                f"A process that reads images ended ({str(cause).splitlines()[0].rstrip('. ')}), often because memory "
                f"ran out: give fewer --data.num_workers.{how}"
            )
        if _is_lost_process(cause):
            return f"Another process of this training ended or was killed.{how}"
    return None


def _is_lost_process(error: BaseException) -> bool:
    if distributed.is_available() and isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and ("gloo" in str(error) or "closed by peer" in str(error))
