"""Bytes from an address: of a web server, which may send anything; of this machine; of what else fsspec knows."""

import asyncio
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

from zoo.errors import ZooError, shown
from zoo.files import open_plain

if TYPE_CHECKING:
    import aiohttp

CONNECT: Final = 5.0  # seconds for a connection
TIMEOUT: Final = 30.0  # seconds for an answer, and without a byte
REDIRECTS: Final = 5
CHUNK: Final = 1 << 20


class RefusedError(Exception):
    """This address will not give the file, however often it is asked."""


@dataclass(frozen=True)
class Stream:
    """An open file.

    Attributes:
        start: offset of its first byte in the whole file; 0 where the server gives no part of a file.
        total: bytes of the whole file, as the server says.
        read: the next bytes, none at the end.
        close: end it.
    """

    start: int
    total: int | None
    read: Callable[[], bytes]
    close: Callable[[], None]


def open_stream(url: str, start: int) -> Stream:
    """The file at ``url`` from the offset ``start`` on, or from the beginning.

    Raises:
        RefusedError: asking again is of no use.
        Exception: whatever the libraries raise.
    """
    scheme = urlsplit(url).scheme
    if scheme in ("http", "https"):
        return _of_web(url, start)
    return _of_machine(url, start) if scheme == "file" else _of_fsspec(url, start)


def _of_web(url: str, start: int) -> Stream:
    from fsspec.asyn import get_loop, sync

    loop = get_loop()  # in a thread of its own, so that it works in a notebook
    session, answer = sync(loop, _ask, url, start)

    async def read() -> bytes:
        async with asyncio.timeout(TIMEOUT):  # the library's own is renewed by bytes that are none of the file's
            found: bytes = await answer.content.read(CHUNK)
            return found

    async def close() -> None:
        answer.close()
        await session.close()

    try:
        first = _first_byte(answer)
        if first != start and answer.status == 206:
            raise RefusedError(f"sends another part of the file than the one asked for, from byte {first} on")
    except RefusedError:
        sync(loop, close)
        if start:  # what is here is no beginning of that file, or the server is confused by the question
            return _of_web(url, 0)
        raise
    length = answer.content_length
    total = None if length is None else first + length
    return Stream(first, total, lambda: sync(loop, read), lambda: sync(loop, close))


async def _ask(url: str, start: int) -> "tuple[aiohttp.ClientSession, aiohttp.ClientResponse]":
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=TIMEOUT)
    session = aiohttp.ClientSession(timeout=timeout, trust_env=True, auto_decompress=False)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        async with asyncio.timeout(TIMEOUT):
            answer = await _follow(session, url, headers)
        if not (start and answer.status == 416):
            answer.raise_for_status()
    except BaseException:
        await session.close()
        raise
    return session, answer


async def _follow(session: "aiohttp.ClientSession", url: str, headers: dict[str, str]) -> "aiohttp.ClientResponse":
    """The answer behind all redirects, which may lead from the web to the web alone."""
    origin = url
    for _ in range(REDIRECTS + 1):
        answer = await session.get(url, headers=headers, allow_redirects=False)
        if answer.status not in (301, 302, 303, 307, 308):
            return answer
        answer.close()
        url = urljoin(url, answer.headers.get("Location", ""))
        if urlsplit(url).scheme not in ("http", "https"):
            raise RefusedError(f"redirects to {shown(url)}, which is not http or https")
        if await _is_local(url) and not await _is_local(origin):
            raise RefusedError(f"redirects to {shown(url)}, an address inside this network")
    raise RefusedError(f"redirects more than {REDIRECTS} times")


async def _is_local(url: str) -> bool:
    """Whether an address is of this machine or its network."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT):
            found = await loop.getaddrinfo(urlsplit(url).hostname, None)
    except (OSError, UnicodeError, TimeoutError):
        return False  # only a proxy knows it
    addresses = [ipaddress.ip_address(str(address[4][0]).partition("%")[0]) for address in found]
    plain = [getattr(address, "ipv4_mapped", None) or address for address in addresses]
    return any(each.is_private or each.is_loopback or each.is_link_local or each.is_unspecified for each in plain)


def _first_byte(answer: "aiohttp.ClientResponse") -> int:
    """Offset in the whole file of the first byte of an answer."""
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise RefusedError(f"sends the file compressed ({shown(encoding)}), which nobody asked for")
    if answer.status == 200:
        return 0
    where = re.match(r"bytes (\d{1,18})-", answer.headers.get("Content-Range", ""))
    if answer.status != 206 or where is None:
        raise RefusedError(f"the server answers {answer.status} {shown(answer.reason or '')}".rstrip())
    return int(where[1])


def _of_machine(url: str, start: int) -> Stream:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise RefusedError("a file of another machine; give it as file:///path")
    try:
        file = open_plain(Path(url2pathname(parts.path)))
    except ZooError as error:
        raise RefusedError(str(error)) from None
    return _of_file(file, file.seek(0, 2), start)


def _of_fsspec(url: str, start: int) -> Stream:
    import fsspec

    files, path = fsspec.url_to_fs(url)
    return _of_file(files.open(path, "rb"), files.size(path), start)


def _of_file(file: Any, total: int | None, start: int) -> Stream:
    start = start if total is not None and start <= total else 0
    file.seek(start)
    return Stream(start, total, lambda: file.read(CHUNK), file.close)
