"""Downloads and an index under attack: hostile servers, planted names, entries that are no weights."""

import os
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from attacks.tally import Tally
from weights_server import CONTENT, HOSTILE, SHA256, Server, serve, wait_for

import zoo
from zoo import cache, datasets, download, index, streams
from zoo.__main__ import main
from zoo.errors import ZooError

ID = "ccnet_r50-d8_cityscapes-512x1024_40k"
LONG = 20  # seconds that no attack may take


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Short waits, little space, and an end to whatever hangs."""
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    monkeypatch.setattr(download, "WINDOW", 0.3)
    monkeypatch.setattr(download, "LARGEST", len(CONTENT))
    monkeypatch.setattr(streams, "TIMEOUT", 0.3)
    monkeypatch.setenv("CONTEXTZOO_HOME", str(tmp_path / "home"))
    for name in ("CONTEXTZOO_OFFLINE", "CONTEXTZOO_SHIPPED", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)

    def stop(*_: object) -> None:
        raise TimeoutError(f"nothing ended within {LONG} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONG)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def small_files() -> Iterator[None]:
    """Not one byte fits into a file beyond those of the weights."""
    signals = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(CONTENT), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, signals)


def weights(*urls: str, size: int | None = None) -> zoo.ZooEntry:
    return replace(zoo.get(ID), url=urls[0], mirrors=urls[1:], sha256=SHA256, size=size)


def one_line(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, ZooError) and text.isprintable() and 0 < len(text) < 1000


ATTACKS = sorted(HOSTILE.keys() - {"steady", "to-home", "to-home-by-name"})


@pytest.mark.parametrize("size", [None, len(CONTENT)], ids=["unknown-size", "known-size"])
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.usefixtures("small_files")
def test_a_hostile_server(server: Server, tmp_path: Path, name: str, size: int | None, tally: Tally) -> None:
    with pytest.raises(ZooError) as caught:
        download.fetch(weights(f"{server.url}/{name}", size=size))
    good = one_line(caught.value) and "the disk is full" not in str(caught.value)
    tally("hostile servers", 1, not good)
    assert good, str(caught.value)
    assert f"/{name}: " in str(caught.value)
    left = [path for path in (tmp_path / "home").iterdir() if path.suffix != ".lock"]
    assert [path.name for path in left] == ([f"{ID}.pth.part"] if name == "trickle" else [])  # what may become right


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("endless", "sends more than 4000000 bytes"),
        ("endless-chunks", "sends more than 4000000 bytes"),
        ("bomb", "sends the file compressed (gzip), which nobody asked for"),
        ("trickle", "too slow, "),
        ("trickled-headers", "no answer within 0.3 s"),
        ("trickled-chunk", "no answer within 0.3 s"),
        ("to-file", "redirects to file:///etc/passwd, which is not http or https"),
        ("to-itself", "redirects more than 5 times"),
    ],
)
def test_the_next_address_serves_instead(server: Server, name: str, message: str) -> None:
    with pytest.raises(ZooError) as caught:
        download.fetch(weights(f"{server.url}/{name}"))
    assert str(caught.value).startswith(f"{ID}: {server.url}/{name}: {message}")
    assert download.fetch(weights(f"{server.url}/{name}", f"{server.url}/good")).read_bytes() == CONTENT


def test_slow_is_not_too_slow(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "home" / f"{ID}.pth.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT[:-20_000])
    assert download.fetch(weights(f"{server.url}/steady")).read_bytes() == CONTENT
    assert [request.range for request in server.requests] == [f"bytes={len(CONTENT) - 20_000}-"]


@pytest.mark.parametrize("name", ["to-home", "to-home-by-name"])
def test_the_web_does_not_lead_home(server: Server, monkeypatch: pytest.MonkeyPatch, name: str, tally: Tally) -> None:
    assert download.fetch(weights(f"{server.url}/{name}")).read_bytes() == CONTENT  # from here to here it may
    (cache.home() / f"{ID}.pth").unlink()
    monkeypatch.setenv("http_proxy", server.url)
    with pytest.raises(ZooError, match=r"redirects to http://\S+/good, an address inside this network") as caught:
        download.fetch(weights(f"http://weights.invalid/{name}"))
    tally("hostile servers", 1, not one_line(caught.value))


def test_an_endless_file_stops_in_front_of_the_end_of_the_disk(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    monkeypatch.setattr(download, "SPARE", free + 10**12)  # more than others could free meanwhile
    for name in ("no-length", "endless", "endless-chunks"):
        with pytest.raises(ZooError, match=rf"^{tmp_path}/home: {ID} needs .* more, 0 B are free beside the last"):
            download.fetch(weights(f"{server.url}/{name}"))
        assert [path.suffix for path in (tmp_path / "home").iterdir()] == [".lock"]


@pytest.mark.parametrize("size", [None, len(CONTENT)], ids=["unknown-size", "known-size"])
@pytest.mark.parametrize("name", ["good", "no-length", "endless"])
def test_a_small_disk(server: Server, tmp_path: Path, name: str, size: int | None) -> None:
    disk = tmp_path / "home"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this user mounts nothing")
    try:
        with pytest.raises(ZooError) as caught:
            download.fetch(weights(f"{server.url}/{name}", size=size))
        assert [path.suffix for path in disk.iterdir()] == [".lock"]
    finally:
        subprocess.run(["umount", disk], check=True)
    assert one_line(caught.value)
    assert f"{ID} needs " in str(caught.value)


@pytest.mark.parametrize("name", ["promise", "huge-promise"])
def test_a_promise_beyond_the_limit_is_refused_unread(server: Server, name: str) -> None:
    with pytest.raises(ZooError) as caught:
        download.fetch(weights(f"{server.url}/{name}", size=1000))
    assert "the index's 1000" in str(caught.value) or "the server answers 400" in str(caught.value)


def test_a_part_that_is_longer_than_the_file(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "home" / f"{ID}.pth.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT + b"x")
    assert download.fetch(weights(f"{server.url}/good", size=len(CONTENT))).read_bytes() == CONTENT
    assert [request.range for request in server.requests] == [None]


def _socket(path: Path, victim: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def _device(path: Path, victim: Path) -> None:
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("this user makes no devices")


def _full_folder(path: Path, victim: Path) -> None:
    path.mkdir()
    (path / "precious").write_text("precious")


PLANTS: dict[str, Callable[[Path, Path], None]] = {
    "link": lambda path, victim: path.symlink_to(victim),
    "dangling link": lambda path, victim: path.symlink_to(victim.with_name("new")),
    "link to a folder": lambda path, victim: path.symlink_to(victim.parent),
    "link to itself": lambda path, victim: path.symlink_to(path),
    "link to a device": lambda path, victim: path.symlink_to("/dev/zero"),
    "second name": lambda path, victim: path.hardlink_to(victim),
    "pipe": lambda path, victim: os.mkfifo(path),
    "socket": _socket,
    "device": _device,
    "folder": lambda path, victim: path.mkdir(),
    "full folder": _full_folder,
}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("name", [f"{ID}.pth", f"{ID}.pth.part", f".{ID}.pth.lock"], ids=["file", "part", "lock"])
def test_a_planted_name(server: Server, tmp_path: Path, name: str, plant: str, tally: Tally) -> None:
    victim = tmp_path / "elsewhere" / "victim"
    victim.parent.mkdir()
    victim.write_bytes(CONTENT[:1000])  # as a part would begin, so that it would be appended to
    planted = tmp_path / "home" / name
    planted.parent.mkdir()
    PLANTS[plant](planted, victim)
    try:
        path = download.fetch(weights(f"{server.url}/good"))
        good = not path.is_symlink() and path.read_bytes() == CONTENT and path.stat().st_nlink == 1
    except ZooError as error:
        good = one_line(error) and str(planted) in str(error)
    good &= victim.read_bytes() == CONTENT[:1000] and [path.name for path in victim.parent.iterdir()] == ["victim"]
    tally("planted names", 1, not good)
    assert good
    assert "folder" not in plant or plant == "link to a folder" or planted.is_dir()


@pytest.mark.parametrize("plant", ["link", "second name", "pipe", "folder", "nothing"])
def test_a_name_that_is_taken_during_the_download(server: Server, tmp_path: Path, plant: str, tally: Tally) -> None:
    victim = tmp_path / "elsewhere" / "victim"
    victim.parent.mkdir()
    victim.write_text("precious")
    part = tmp_path / "home" / f"{ID}.pth.part"

    def swap() -> None:
        wait_for(lambda: part.exists() and part.stat().st_size >= len(CONTENT) // 2)
        part.unlink()
        if plant != "nothing":
            PLANTS[plant](part, victim)
        server.release.set()

    thread = threading.Thread(target=swap)
    thread.start()
    with pytest.raises(ZooError) as caught:
        download.fetch(weights(f"{server.url}/stall"))
    thread.join()
    good = (
        one_line(caught.value) and victim.read_text() == "precious" and not (tmp_path / "home" / f"{ID}.pth").exists()
    )
    tally("planted names", 1, not good)
    assert good


def test_the_users_own_link_to_a_cache_elsewhere(server: Server, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    assert download.fetch(weights(f"{server.url}/good")).read_bytes() == CONTENT
    assert (tmp_path / "disk" / f"{ID}.pth").is_file()


@pytest.mark.parametrize("url", ["/dev/zero", "/proc/self/mem", "/", "{}/pipe", "{}/absent", "{}/%00", "//host/share"])
def test_what_is_no_file_of_this_machine(tmp_path: Path, url: str, tally: Tally) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ZooError) as caught:
        download.fetch(weights(f"file://{url.format(tmp_path)}"))
    tally("addresses", 1, not one_line(caught.value))
    assert one_line(caught.value), str(caught.value)


TEXT = """name = "Toy"
paper = "none"

[entry.toy_r50-d8_camvid-8x8_1k]
backbone = { name = "resnet18", output_stride = 8, changes = {} }
decode_head = { type = "Toy", channels = 8 }
auxiliary_head = { type = "Toy" }
dataset = "camvid"
split = "val"
crop = [8, 8]
align_corners = false
window = [8, 8]
stride = [4, 4]
metrics = { mIoU = 50, mIoU_ms = 51.5 }
metrics_source = "measured"
iterations = 1
batch = 1
optimizer = "SGD"
lr = 0.1
memory_gb = 1.5
url = "http://127.0.0.1:9/x"
mirrors = ["http://127.0.0.1:9/y"]
size = 1000
sha256 = "0123abcd"
format = "safetensors"
code_licence = "MIT"
weights_licence = "MIT"
config = "none"
"""
TOY = "toy_r50-d8_camvid-8x8_1k"
FIELDS = [line.partition(" = ")[0] for line in TEXT.splitlines() if " = " in line]
DEEP = 20_000
BAD = {
    "nothing": '""',
    "blank": '" "',
    "climbing": '"../../../etc/passwd"',
    "absolute": '"/etc/passwd"',
    "climbing address": '"checkpoints/../../etc/passwd"',
    "hidden address": '"checkpoints/.git/config"',
    "NUL": r'"a\u0000b"',
    "escape": r'"\u001b[2J"',
    "right to left": r'"\u202egnp.exe"',
    "two lines": r'"a\nb"',
    "long": f'"{"x" * 5000}"',
    "odd scheme": '"ftp://127.0.0.1/x"',
    "script": '"javascript:x"',
    "chained": '"file:///etc/passwd::http://127.0.0.1/x"',
    "below zero": "-1",
    "zero": "0",
    "huge": "1" + "0" * 30,
    "very huge": "0x" + "f" * 5000,
    "too many digits": "9" * 5000,
    "infinite": "inf",
    "no number": "nan",
    "true": "true",
    "date": "1979-05-27",
    "list": "[]",
    "list of lists": '[["x"], [1979-05-27]]',
    "table": "{}",
    "table of dates": '{ type = "Toy", name = "x", output_stride = 8, x = 1979-05-27 }',
    "wrong type": "{ type = 5, name = 5 }",
    "huge in a table": f'{{ type = "Toy", name = "x", output_stride = 8, changes = {{ x = 0x{"f" * 5000} }} }}',
    "nested": f'{{ type = "Toy", x = {"[" * 50}{"]" * 50} }}',
    "deep": "[" * DEEP + "]" * DEEP,
    "not closed": '"',
    "not there": None,
}


@pytest.fixture
def own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of an index of one head."""
    (tmp_path / "index" / "semantic").mkdir(parents=True)
    monkeypatch.setattr(index, "INDEX", tmp_path / "index")
    index.read.cache_clear()
    yield tmp_path / "index" / "semantic" / "toy.toml"
    index.read.cache_clear()


COMMANDS = (["check"], ["list"], ["list", "--json"], ["show", TOY], ["where", TOY], ["verify"], ["remove", TOY])


def attack(own_index: Path, commands: tuple[list[str], ...], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What each command says of the index when it refuses it."""
    said = []
    for command in commands:
        index.read.cache_clear()
        status = main(command)
        error = capsys.readouterr().err
        assert status in (0, 1, 2), command
        if status == 2:
            assert error.count("\n") == 1
            assert error[:-1].isprintable()
            assert len(error) < 1000
            said.append(error)
    return said


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_is_wrong(
    own_index: Path, tmp_path: Path, field: str, tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every bad value in every field: each command names file and field, or there was nothing wrong in it."""
    lines = TEXT.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith(f"{field} = "))
    for kind, value in BAD.items():
        changed = [] if value is None else [f"{field} = {value}"]
        own_index.write_text("\n".join([*lines[:place], *changed, *lines[place + 1 :]]))
        said = attack(own_index, COMMANDS, capsys)
        assert len(said) in (0, len(COMMANDS)), kind
        named = [f"{own_index}" in line and (field in line or "toml:" in line or "deep" in kind) for line in said]
        tally("index fields", len(COMMANDS), named.count(False))
        assert all(named), said
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "id",
    [
        *(
            "toy_../../etc/passwd",
            "/etc/passwd",
            "toy_/etc/passwd",
            "toy_*",
            "toy_[a-z]",
            "toy_x.pth",
            "TOY_R50_X",
            "toy",
        ),
        *(
            f"toy_{'x' * 300}",
            "toy_ä",
            r"toy_\u0000",
            r"toy_\n",
            r"toy_\u001b[2J",
            "other_x",
            "",
            " ",
            "toy__x",
        ),
    ],
)
def test_an_id_that_is_no_name(
    own_index: Path, tmp_path: Path, id: str, tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    own_index.write_text(TEXT.replace(f"[entry.{TOY}]", f'[entry."{id}"]'))
    said = attack(own_index, (["check"], ["list"], ["show", id], ["download", id], ["remove", id]), capsys)
    tally("index ids", 5, 5 - len(said))
    assert len(said) == 5
    assert all(f"{own_index}:" in line and ": id: " in line for line in said)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "content",
    [
        *(b"\xff\xfe", b"", b"\x00", b"entry = 5", b"name = 1", b"[[entry]]", b"a." * 20_000 + b"b = 1"),
        *(b"[entry]\nx = 5", b"[model]\nx = 5", b"[defaults]\nx = 1", b"defaults = []", b"entry = []", b"x = {" * 9000),
        *(b'name = "Toy"\npaper = "p"\n[entry.x]', b"#" * 5_000_000, b"name = " + b"'" * 3 + b"x" * 100_000),
    ],
    ids=lambda content: f"{bytes(content[:8])!r}-{len(content)}",
)
def test_a_file_that_is_no_index(
    own_index: Path, content: bytes, tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    own_index.write_bytes(content)
    said = attack(own_index, COMMANDS, capsys)
    tally("index files", len(COMMANDS), len(COMMANDS) - len(said))
    assert len(said) == len(COMMANDS)
    assert all(str(own_index) in line for line in said)


@pytest.mark.parametrize("plant", ["pipe", "device", "folder", "link to a device", "link to itself", "socket"])
def test_a_name_in_the_index_that_is_no_file(
    own_index: Path, tmp_path: Path, plant: str, tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    PLANTS[plant](own_index, tmp_path / "victim")
    said = attack(own_index, COMMANDS, capsys)
    tally("index files", len(COMMANDS), len(COMMANDS) - len(said))
    assert len(said) == len(COMMANDS)


@pytest.mark.parametrize("value", ["5", '""', "[]", '"a, b, a"', r'"\u001b"', "1979-05-27", "{}", None])
@pytest.mark.parametrize("field", ["title", "data", "terms", "commercial", "url", "evaluated", "classes", "palette"])
def test_a_dataset_that_is_wrong(
    own_index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    value: str | None,
    tally: Tally,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = {"title": '"T"', "data": '"D"', "terms": '"t"', "commercial": '"no"', "classes": '"a, b"'}
    table = good | {"palette": '"000000 ffffff"', "url": '"http://x/"', "evaluated": "[8, 8]"} | {field: value}
    text = "[toy]\n" + "\n".join(f"{key} = {each}" for key, each in table.items() if each is not None)
    (tmp_path / "datasets.toml").write_text(text)
    monkeypatch.setattr(datasets, "ROOT", tmp_path)
    datasets.datasets.cache_clear()
    try:
        datasets.datasets()
        good_line = value is None or (field in ("title", "data", "terms", "url") and value == '"a, b, a"')
    except ZooError as error:
        good_line = one_line(error) and "datasets.toml" in str(error)
    finally:
        datasets.datasets.cache_clear()
    tally("index fields", 1, not good_line)
    assert good_line
