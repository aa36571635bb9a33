"""Fetch a file of weights: one process at a time, resumed where it stopped, checked before it gets its name.

Nothing that a server sends is believed: no more bytes are written than the index's size, none where the disk would be
full, and one that dawdles is left. Nothing that stands in the folder already is followed, waited for or written to.
"""

import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import FileIO
from pathlib import Path
from typing import Final

from zoo import cache, files, streams
from zoo.entry import SHIPPED, Stored, ZooEntry
from zoo.errors import ZooError, shown
from zoo.streams import RefusedError, open_stream

ATTEMPTS: Final = 4  # at each address
BACKOFF: Final = 0.5  # seconds before the second attempt, doubled each time
LARGEST: Final = 4 * 10**9  # bytes, where the index gives no size; the largest published file has 0.6 GB
SPARE: Final = 64 * 10**6  # bytes of the disk that are left free where nobody says how many will come
WINDOW: Final = 30.0  # seconds over which the speed is taken
SLOWEST: Final = 4000.0  # bytes a second
_PASSING_STATUS: Final = frozenset({408, 425, 429})  # of the 4xx, those worth another attempt
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

OnBytes = Callable[[int, int | None], None]  # bytes so far, bytes in all


class _CutError(Exception):
    """The stream ended early."""


def human(size: int) -> str:
    """Bytes as people write them."""
    for unit, bytes_ in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_:
            return f"{size / bytes_:.3g} {unit}"
    return f"{size} B"


def fetch(entry: ZooEntry, to: Path | None = None, say: Callable[[str], None] = lambda line: None) -> Path:
    """Path of the entry's file, downloaded if it is not here, its hash checked either way; the parts it shares too.

    Args:
        to: folder to put it in; None = the cache, or where it ships with the repository.
        say: gets the lines that a person should see.

    Raises:
        ZooError: no address gave the file, the disk is full, or ``CONTEXTZOO_OFFLINE`` forbids to look.
    """
    for part in entry.shared_files:
        fetch_file(part, to, say)
    return fetch_file(entry, to, say)


def fetch_file(entry: Stored, to: Path | None = None, say: Callable[[str], None] = lambda line: None) -> Path:
    """The same of one file."""
    from filelock import FileLock, Timeout

    ships = cache.shipped(entry)
    if ships and to is None and cache.intact(entry, ships):
        say(f"{entry.id}: ships with the repository, verified")
        return ships
    path = (to or cache.home()) / entry.filename
    if files.is_file(path) and cache.intact(entry, path):  # needs no lock, so a folder may be read-only
        say(f"{entry.id}: already here, verified")
        return path
    files.make_folder(path.parent)
    name = path.with_name(f".{path.name}.lock")
    files.clear(name)
    lock = FileLock(name)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        say(f"{entry.id}: another process is fetching it, waiting")
        lock.acquire()
    except OSError as error:
        raise ZooError(f"{path.parent}: {error.strerror}") from None
    try:
        return _fetch(entry, path, say)
    finally:
        lock.release()


def _fetch(entry: Stored, path: Path, say: Callable[[str], None]) -> Path:
    if files.is_file(path):
        if cache.intact(entry, path):
            say(f"{entry.id}: already here, verified")
            return path
        _remove(path)
        say(f"{entry.id}: the file here was corrupt and is gone")
    files.clear(path)
    failures = []
    for source in entry.sources:
        url = _address(source)
        if url is None:
            failures.append(f"{source} {cache.NOT_HERE}")
            continue
        if cache.offline() and not url.startswith("file:"):
            failures.append(f"CONTEXTZOO_OFFLINE is set: put the file at {path}, or unset it")
            continue
        try:
            _from_source(entry, url, path)
        except RefusedError as error:
            failures.append(f"{url}: {error}")
            continue
        say(f"{entry.id}: {human(path.stat().st_size)}  sha256 {_digits(entry)} ok")
        return path
    raise ZooError(f"{entry.id}: {'; '.join(dict.fromkeys(failures))}")


def _address(source: str) -> str | None:
    """The URL of an entry's source; None of a file of the repository that nothing here leads to."""
    if not source.startswith(f"{SHIPPED}/"):
        return source
    if files.is_file(cache.CHECKOUT / source):
        return (cache.CHECKOUT / source).as_uri()
    if (place := cache.shipped_at()) is None:
        return None
    rest = source.removeprefix(f"{SHIPPED}/")
    return f"{place.rstrip('/')}/{rest}" if "://" in place else (Path(place).expanduser().resolve() / rest).as_uri()


def _digits(entry: Stored) -> str:
    if len(entry.sha256) == 64:
        return f"{entry.sha256[:4]}..{entry.sha256[-2:]}"
    return f"{entry.sha256}.. (all that is published)"


def _from_source(entry: Stored, url: str, path: Path) -> None:
    """Bring the file from one address to ``path``, in several attempts."""
    part = path.with_name(f"{path.name}.part")
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        with files.open_own(part) as file:
            try:
                with _progress(entry.id) as on_bytes:
                    start = _transfer(entry, url, file, part, on_bytes)
                if cache.matches(entry, file):
                    _name(file, part, path)
                    return
                file.truncate(0)
                problem = "wrong bytes, their sha256 is not the index's"
                if start == 0:  # else the bytes of an earlier run may be the wrong ones
                    raise RefusedError(problem)
            except (ZooError, RefusedError):
                raise
            except Exception as error:  # every file system of fsspec has errors of its own
                problem = _reason(error)
                if _final(error):
                    raise RefusedError(problem) from None
            finally:
                if os.fstat(file.fileno()).st_size == 0:
                    part.unlink(missing_ok=True)
    raise RefusedError(f"{problem} ({ATTEMPTS} attempts; the next call resumes)")


def _name(file: FileIO, part: Path, path: Path) -> None:
    try:
        if not os.path.samestat(os.fstat(file.fileno()), part.lstat()):
            raise ZooError(f"{part}: something else took its name during the download")
        part.replace(path)
    except OSError as error:
        raise ZooError(f"{path}: {error.strerror}") from None


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise ZooError(f"{path}: {error.strerror}") from None


def _transfer(entry: Stored, url: str, file: FileIO, part: Path, on_bytes: OnBytes) -> int:
    """Append to the part what it lacks; returns how much was there before."""
    limit = entry.size or LARGEST
    start = os.fstat(file.fileno()).st_size
    if start and cache.matches(entry, file):  # stopped between the last byte and the rename
        return start
    stream = open_stream(url, start if start < limit else 0)
    with closing(stream):
        start, total = stream.start, stream.total
        file.truncate(start)
        if total is not None and entry.size not in (None, total):
            file.truncate(0)
            raise RefusedError(f"the server's file has {total} bytes, the index's {entry.size}")
        if (total or 0) > limit:
            file.truncate(0)
            raise RefusedError(f"the server's file has {human(total or 0)}; {human(limit)} is the most that is taken")
        size = entry.size or total
        _check_space(entry, part, (size or start) - start, file, spare=0 if size else SPARE)
        done, pace = start, _Pace()
        while chunk := pace.time(stream.read):
            if done + len(chunk) > limit:
                file.truncate(0)
                most = "the index's size" if entry.size else "the most that is taken"
                raise RefusedError(f"sends more than {limit} bytes, {most}")
            _check_space(entry, part, len(chunk), file, spare=0 if size else SPARE)
            _write(file, chunk, entry, part)
            done += len(chunk)
            on_bytes(done, total)
    if total is not None and done < total:
        raise _CutError(f"cut after {done} of {total} bytes")
    return start


class _Pace:
    """Refuses a server that dawdles; what this machine does with the bytes takes no time here."""

    def __init__(self) -> None:
        self.bytes, self.seconds = 0, 0.0

    def time(self, read: Callable[[], bytes]) -> bytes:
        before = time.monotonic()
        chunk = read()
        self.seconds += time.monotonic() - before
        self.bytes += len(chunk)
        if self.seconds >= WINDOW:
            if chunk and self.bytes < SLOWEST * self.seconds:
                raise RefusedError(f"too slow, {self.bytes / self.seconds:.3g} bytes a second; the next call resumes")
            self.bytes, self.seconds = 0, 0.0
        return chunk


def _check_space(entry: Stored, part: Path, needed: int, file: FileIO, *, spare: int) -> None:
    try:
        free = max(shutil.disk_usage(part.parent).free - spare, 0)
    except OSError as error:
        raise ZooError(f"{part.parent}: {error.strerror}") from None
    if needed > free:
        file.truncate(0)
        left = f" beside the last {human(spare)}" if spare else ""
        raise ZooError(
            f"{part.parent}: {entry.id} needs {human(needed)} more, {human(free)} are free{left}; what was there of it "
            "is removed"
        )


def _write(file: FileIO, chunk: bytes, entry: Stored, part: Path) -> None:
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        if error.errno in _FULL:
            file.truncate(0)
            raise ZooError(f"{part.parent}: the disk is full; what was there of {entry.id} is removed") from None
        raise ZooError(f"{part}: {error.strerror}") from None


def _final(error: Exception) -> bool:
    """Whether another attempt would fail in the same way."""
    import aiohttp

    status = getattr(error, "status", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status not in _PASSING_STATUS
    hopeless = (FileNotFoundError, IsADirectoryError, PermissionError, ImportError, ValueError)
    return isinstance(error, (*hopeless, aiohttp.ConnectionTimeoutError))


def _reason(error: Exception) -> str:
    """What went wrong, in one line, whatever the server put into it."""
    import aiohttp

    status = getattr(error, "status", None)
    if status == 404 or isinstance(error, FileNotFoundError):
        return "not found"
    if isinstance(status, int):
        lines = str(getattr(error, "message", "")).splitlines()
        return f"the server answers {status} {shown(lines[0] if lines else '')}".rstrip()
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"no connection within {streams.CONNECT:g} s"
    if isinstance(error, TimeoutError):
        return f"no answer within {streams.TIMEOUT:g} s"
    lines = str(error).strip().splitlines()
    return shown(lines[0]) if lines else type(error).__name__


@contextmanager
def _progress(name: str) -> Iterator[OnBytes]:
    """A progress bar on the error stream, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
