"""Downloads against a server that misbehaves, a full disk, a killed process and a second process."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from weights_server import CONTENT, HALF, SHA256, Request, Server, Zoo, copy_zoo, serve, wait_for

import zoo
from zoo import download, streams
from zoo.errors import ZooError


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def toy(tmp_path: Path) -> Zoo:
    return copy_zoo(tmp_path)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    monkeypatch.setattr(streams, "TIMEOUT", 0.3)
    monkeypatch.setenv("CONTEXTZOO_HOME", str(tmp_path / "home"))
    for name in ("CONTEXTZOO_OFFLINE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


def weights(*urls: str, sha256: str = SHA256, size: int | None = None) -> zoo.ZooEntry:
    entry = zoo.get("ccnet_r50-d8_cityscapes-512x1024_40k")
    return replace(entry, url=urls[0], mirrors=urls[1:], sha256=sha256, size=size)


def offset(request: Request) -> int:
    return int((request.range or "bytes=0-").removeprefix("bytes=").removesuffix("-"))


def leftovers(path: Path) -> list[str]:
    """What lies in the folder, lock files apart."""
    return sorted(each.name for each in path.iterdir() if not each.name.endswith(".lock"))


@pytest.mark.parametrize("name", ["good", "cut", "no-range", "other-range", "no-length", "busy", "moved"])
def test_the_file_arrives_whatever_the_server_does(server: Server, tmp_path: Path, name: str) -> None:
    lines: list[str] = []
    path = download.fetch(weights(f"{server.url}/{name}"), say=lines.append)
    assert path == tmp_path / "home" / "ccnet_r50-d8_cityscapes-512x1024_40k.pth"
    assert path.read_bytes() == CONTENT
    assert leftovers(path.parent) == [path.name]
    assert lines[-1].endswith(f": 4 MB  sha256 {SHA256[:4]}..{SHA256[-2:]} ok")


def test_a_cut_transfer_goes_on_where_it_stopped(server: Server) -> None:
    download.fetch(weights(f"{server.url}/cut"))
    first, second = (offset(request) for request in server.requests)
    assert first == 0
    assert 0 < second <= HALF  # what was still in the client's buffers is asked for again


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("404", "not found"),
        ("403", "the server answers 403 Forbidden"),
        ("500", "the server answers 500 Internal Server Error (4 attempts"),
        ("wrong", "wrong bytes, their sha256 is not the index's"),
        ("too-short", "wrong bytes, their sha256 is not the index's"),
        ("hang", "no answer within 0.3 s (4 attempts"),
    ],
)
def test_a_file_that_is_not_right_never_gets_its_name(server: Server, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ZooError) as caught:
        download.fetch(weights(f"{server.url}/{name}"))
    assert str(caught.value).startswith(f"ccnet_r50-d8_cityscapes-512x1024_40k: {server.url}/{name}: {message}")
    assert "\n" not in str(caught.value)
    assert leftovers(tmp_path / "home") == []
    assert server.count(f"/{name}") == (4 if "attempts" in message else 1)


def test_a_promise_of_more_bytes_than_there_are(server: Server, tmp_path: Path) -> None:
    path = download.fetch(weights(f"{server.url}/too-long"))  # after the cut, the part itself has the right hash
    assert path.read_bytes() == CONTENT
    assert leftovers(path.parent) == [path.name]


def test_a_part_stays_for_the_next_call(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="the next call resumes"):
        download.fetch(weights(f"{server.url}/always-cut"))
    part = tmp_path / "home" / "ccnet_r50-d8_cityscapes-512x1024_40k.pth.part"
    size = part.stat().st_size
    assert 0 < size < len(CONTENT)
    assert part.read_bytes() == CONTENT[:size]
    server.requests.clear()
    download.fetch(weights(f"{server.url}/good"))
    assert list(map(offset, server.requests)) == [size]


def test_a_part_of_something_else_is_thrown_away(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "home" / "ccnet_r50-d8_cityscapes-512x1024_40k.pth.part"
    part.parent.mkdir()
    for stale in (bytes(1000), bytes(len(CONTENT) + 1000)):
        part.write_bytes(stale)
        path = download.fetch(weights(f"{server.url}/good"))
        assert path.read_bytes() == CONTENT
        path.unlink()


def test_a_size_that_is_not_the_indexs_stops_before_the_transfer(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="the server's file has 4000000 bytes, the index's 1000"):
        download.fetch(weights(f"{server.url}/good", size=1000))
    assert leftovers(tmp_path / "home") == []


def test_mirrors_are_tried_in_order(server: Server) -> None:
    urls = [f"{server.url}/{name}" for name in ("404", "wrong", "always-cut", "good")]
    assert download.fetch(weights(*urls)).read_bytes() == CONTENT
    order = [request.path for request in server.requests]
    assert order == ["/404", "/wrong", *["/always-cut"] * 4, "/good"]
    offsets = list(map(offset, server.requests))
    assert offsets == sorted(offsets)
    assert offsets[-1] > 0


def test_every_address_is_named_when_all_fail(server: Server) -> None:
    with pytest.raises(ZooError, match=r"/404: not found; .*/wrong: wrong bytes"):
        download.fetch(weights(f"{server.url}/404", f"{server.url}/wrong"))


def test_wrong_bytes_behind_a_good_beginning(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "home" / "ccnet_r50-d8_cityscapes-512x1024_40k.pth.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT[:1000])
    with pytest.raises(ZooError, match="wrong bytes"):
        download.fetch(weights(f"{server.url}/wrong-end"))
    assert [request.range for request in server.requests] == ["bytes=1000-", None]
    assert leftovers(part.parent) == []


def test_the_first_8_digits_are_enough_where_no_more_is_published(server: Server) -> None:
    lines: list[str] = []
    entry = weights(f"{server.url}/good", sha256=SHA256[:8])
    download.fetch(entry, say=lines.append)
    assert lines[-1].endswith(f"sha256 {SHA256[:8]}.. (all that is published) ok")
    with pytest.raises(ZooError, match="wrong bytes"):
        download.fetch(replace(entry, sha256="0" * 8))


def test_a_second_call_only_verifies(server: Server) -> None:
    lines: list[str] = []
    entry = weights(f"{server.url}/good")
    assert download.fetch(entry) == download.fetch(entry, say=lines.append)
    assert server.count("/good") == 1
    assert lines == [f"{entry.id}: already here, verified"]


def test_a_corrupt_file_is_fetched_again(server: Server) -> None:
    entry = weights(f"{server.url}/good")
    path = download.fetch(entry)
    path.write_bytes(CONTENT[:-1] + b"x")
    lines: list[str] = []
    assert download.fetch(entry, say=lines.append).read_bytes() == CONTENT
    assert lines[0].endswith("the file here was corrupt and is gone")


def test_offline(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONTEXTZOO_OFFLINE", "1")
    entry = weights(f"{server.url}/good", f"{server.url}/mirror")
    with pytest.raises(
        ZooError, match=rf"CONTEXTZOO_OFFLINE is set: put the file at {tmp_path}/home/ccnet_.*\.pth, or"
    ):
        download.fetch(entry)
    assert server.requests == []
    path = tmp_path / "home" / entry.filename
    path.write_bytes(CONTENT)
    assert download.fetch(entry) == path


def test_a_file_of_this_machine(tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(CONTENT)
    part = tmp_path / "home" / "ccnet_r50-d8_cityscapes-512x1024_40k.pth.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT[:1000])
    assert download.fetch(weights(source.as_uri())).read_bytes() == CONTENT
    with pytest.raises(ZooError, match="not found"):
        download.fetch(weights((tmp_path / "absent").as_uri()), to=tmp_path / "elsewhere")


def test_through_a_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    download.fetch(weights("http://weights.invalid/good"))
    assert [request.path for request in server.requests] == ["http://weights.invalid/good"]


@pytest.mark.parametrize("folder", ["file/below", "/proc/zoo"])
def test_a_folder_that_cannot_be(server: Server, tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ZooError, match=r"^/.*(file|zoo|below): "):
        download.fetch(weights(f"{server.url}/good"), to=tmp_path / folder)


def test_a_full_disk(server: Server, toy: Zoo) -> None:
    id = toy.add("full", f"{server.url}/good")
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    status, out, err = toy.run("download", id, before=limit)
    assert (status, out) == (2, "")
    assert err == f"{toy.home}: the disk is full; what was there of {id} is removed\n"
    assert leftovers(toy.home) == []


def test_a_killed_process_is_resumed(server: Server, toy: Zoo) -> None:
    id = toy.add("killed", f"{server.url}/stall")
    part = toy.home / f"{id}.safetensors.part"
    with toy.start("download", id) as process:
        wait_for(lambda: part.exists() and part.stat().st_size == HALF)
        os.kill(process.pid, signal.SIGKILL)
    assert leftovers(toy.home) == [part.name]
    server.release.set()
    status, out, _ = toy.run("download", id)
    assert (status, out) == (0, f"{id}: 4 MB  sha256 {SHA256[:4]}..{SHA256[-2:]} ok\n")
    assert server.requests[-1].range == f"bytes={HALF}-"
    assert (toy.home / f"{id}.safetensors").read_bytes() == CONTENT


def test_an_interrupted_process_says_how_to_go_on(server: Server, toy: Zoo) -> None:
    id = toy.add("interrupted", f"{server.url}/stall")
    part = toy.home / f"{id}.safetensors.part"
    with toy.start("download", id) as process:
        wait_for(lambda: part.exists() and part.stat().st_size == HALF)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "Stopped; the same command goes on where it stopped.\n")


def test_two_processes_download_once(server: Server, toy: Zoo) -> None:
    id = toy.add("twice", f"{server.url}/slow")
    both = [toy.start("download", id) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert server.count("/slow") == 1
    last = sorted(out.splitlines()[-1] for out, _ in outputs)
    assert last == [f"{id}: 4 MB  sha256 {SHA256[:4]}..{SHA256[-2:]} ok", f"{id}: already here, verified"]
