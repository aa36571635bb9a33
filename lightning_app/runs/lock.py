"""A run's folder for one training at a time."""

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from lightning_app.util.errors import InputError
from lightning_app.util.files import make_folder, remove_leftovers

LOCK: Final = ".lock"


class Lock:
    """A run's folder for one training at a time: held from ``take`` to the end of the block, or of the process.

    A record lock, which the processes that a training forks to read images do not inherit.
    """

    def __init__(self) -> None:
        self._file: IO[str] | None = None
        self.folder: Path | None = None

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def take(self, folder: Path) -> None:
        """Lock ``folder``, unless that is done, and clear away what a killed training had begun to write there.

        Raises:
            InputError: another process holds it.
        """
        if self._file is not None:
            return
        make_folder(folder)
        path = folder / LOCK
        if path.is_symlink() or (path.exists() and not path.is_file()):  # opening it would change another file, or wait
            raise InputError(f"{path} is no plain file: remove it")
        file = path.open("a+")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise InputError(
                f"{folder} is being trained by another process{f' ({holder})' if holder else ''}: "
                "wait for its end, or choose another --run"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        self._file, self.folder = file, folder
        for place in (folder, folder / "checkpoints"):
            remove_leftovers(place)
