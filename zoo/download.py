"""Fetch a file of weights: one process at a time, resumed where it stopped, checked before it gets its name."""

import errno
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from zoo import cache
from zoo.entry import SHIPPED, ZooEntry
from zoo.errors import ZooError

ATTEMPTS: Final = 4  # at each address
BACKOFF: Final = 0.5  # seconds before the second attempt, doubled each time
TIMEOUT: Final = 30.0  # seconds without a byte
CHUNK: Final = 1 << 20
_PASSING_STATUS: Final = frozenset({408, 425, 429})  # of the 4xx, those worth another attempt
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

OnBytes = Callable[[int, int | None], None]  # bytes so far, bytes in all


class _RefusedError(Exception):
    """This address will not give the file, however often it is asked."""


class _CutError(Exception):
    """The stream ended early."""


def human(size: int) -> str:
    """Bytes as people write them."""
    for unit, bytes_ in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_:
            return f"{size / bytes_:.3g} {unit}"
    return f"{size} B"


def fetch(entry: ZooEntry, to: Path | None = None, say: Callable[[str], None] = lambda line: None) -> Path:
    """Path of the entry's file, downloaded if it is not here, its hash checked either way.

    Args:
        to: folder to put it in; None = the cache, or where it ships with the repository.
        say: gets the lines that a person should see.

    Raises:
        ZooError: no address gave the file, the disk is full, or ``CONTEXTZOO_OFFLINE`` forbids to look.
    """
    from filelock import FileLock, Timeout

    ships = cache.shipped(entry)
    if ships and to is None and cache.intact(entry, ships):
        say(f"{entry.id}: ships with the repository, verified")
        return ships
    path = (to or cache.home()) / entry.filename
    if path.is_file() and cache.intact(entry, path):  # needs no lock, so a folder may be read-only
        say(f"{entry.id}: already here, verified")
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"{path.parent}: {error.strerror}") from None
    lock = FileLock(path.with_name(f".{path.name}.lock"))
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


def _fetch(entry: ZooEntry, path: Path, say: Callable[[str], None]) -> Path:
    if path.exists():
        if cache.intact(entry, path):
            say(f"{entry.id}: already here, verified")
            return path
        path.unlink()
        say(f"{entry.id}: the file here was corrupt and is gone")

    failures = []
    for source in entry.sources:
        url = source
        if source.startswith(f"{SHIPPED}/"):
            if not (cache.CHECKOUT / source).is_file():
                failures.append(f"{source} is not in this installation")
                continue
            url = (cache.CHECKOUT / source).as_uri()
        elif cache.offline() and not source.startswith("file:"):
            failures.append(f"CONTEXTZOO_OFFLINE is set: put the file at {path}, or unset it")
            continue
        try:
            _from_source(entry, url, path)
        except _RefusedError as error:
            failures.append(f"{url}: {error}")
            continue
        say(f"{entry.id}: {human(path.stat().st_size)}  sha256 {_digits(entry)} ok")
        return path
    raise ZooError(f"{entry.id}: {'; '.join(dict.fromkeys(failures))}")


def _digits(entry: ZooEntry) -> str:
    if len(entry.sha256) == 64:
        return f"{entry.sha256[:4]}..{entry.sha256[-2:]}"
    return f"{entry.sha256}.. (all that is published)"


def _from_source(entry: ZooEntry, url: str, path: Path) -> None:
    """Bring the file from one address to ``path``, in several attempts."""
    part = path.with_name(f"{path.name}.part")
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        try:
            with _progress(entry.id) as on_bytes:
                start = _transfer(entry, url, part, on_bytes)
        except (ZooError, _RefusedError):
            raise
        except Exception as error:  # every file system of fsspec has errors of its own
            problem = _reason(error)
            if _final(error):
                raise _RefusedError(problem) from None
            continue
        if cache.intact(entry, part):
            part.replace(path)
            return
        part.unlink()
        problem = "wrong bytes, their sha256 is not the index's"
        if start == 0:  # else the bytes of an earlier run may be the wrong ones
            raise _RefusedError(problem)
    raise _RefusedError(f"{problem} ({ATTEMPTS} attempts; the next call resumes)")


def _transfer(entry: ZooEntry, url: str, part: Path, on_bytes: OnBytes) -> int:
    """Append to ``part`` what it lacks; returns how much was there before."""
    start = part.stat().st_size if part.exists() else 0
    if start and cache.intact(entry, part):  # stopped between the last byte and the rename
        return start
    open_stream = _open_http if url.startswith("http") else _open_other
    stream, start, total = open_stream(url, start)
    with closing(stream):
        if None not in (entry.size, total) and total != entry.size:
            raise _RefusedError(f"the server's file has {total} bytes, the index's {entry.size}")
        if total is not None and total - start > (free := shutil.disk_usage(part.parent).free):
            raise ZooError(f"{part.parent}: {entry.id} needs {human(total - start)}, {human(free)} are free")
        done = start
        try:
            file = part.open("ab" if start else "wb")
        except OSError as error:
            raise ZooError(f"{part}: {error.strerror}") from None
        with file:
            while chunk := stream.read(CHUNK):
                _write(file, chunk, entry, part)
                done += len(chunk)
                on_bytes(done, total)
    if total is not None and done < total:
        raise _CutError(f"cut after {done} of {total} bytes")
    return start


def _write(file: Any, chunk: bytes, entry: ZooEntry, part: Path) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        if error.errno in _FULL:
            part.unlink()
            raise ZooError(f"{part.parent}: the disk is full; what was there of {entry.id} is removed") from None
        raise ZooError(f"{part}: {error.strerror}") from None


def _open_http(url: str, start: int) -> tuple[Any, int, int | None]:
    """Stream, the offset that it really starts at, bytes of the whole file where the server says."""
    import aiohttp
    import fsspec

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=TIMEOUT)
    http = fsspec.filesystem("http", client_kwargs={"timeout": timeout, "trust_env": True}, skip_instance_cache=True)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        stream = http.open(url, block_size=0, size=1, headers=headers)  # streamed; any size spares a HEAD request
    except aiohttp.ClientResponseError as error:
        if error.status == 416 and start:  # the part is no beginning of that file
            return _open_http(url, 0)
        raise
    answer = stream.r
    if start and answer.status == 206:
        where = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        if where is None or int(where[1]) != start:
            stream.close()
            return _open_http(url, 0)
    elif start:
        start = 0
    length = answer.headers.get("Content-Length")
    return stream, start, None if length is None else start + int(length)


def _open_other(url: str, start: int) -> tuple[Any, int, int | None]:
    """The same for every other file system that fsspec knows."""
    import fsspec

    files, path = fsspec.url_to_fs(url)
    total = files.size(path)
    start = start if start <= total else 0
    stream = files.open(path, "rb")
    stream.seek(start)
    return stream, start, total


def _final(error: Exception) -> bool:
    """Whether another attempt would fail in the same way."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status not in _PASSING_STATUS
    return isinstance(error, FileNotFoundError | PermissionError | ImportError | ValueError)


def _reason(error: Exception) -> str:
    if isinstance(status := getattr(error, "status", None), int):
        return f"the server answers {status} {getattr(error, 'message', '')}".rstrip()
    if isinstance(error, FileNotFoundError):
        return "not found"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


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
