"""The zoo command as typed."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from weights_server import CONTENT, SHA256, Server, Zoo, copy_zoo, serve

from lightning_app.reading import tensor_files
from zoo import index
from zoo.datasets import datasets

ID = "ccnet_r50-d8_cityscapes-512x1024_40k"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """For commands that write nothing."""
    return copy_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture
def own(tmp_path: Path) -> Zoo:
    return copy_zoo(tmp_path)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def test_list_is_plain_when_piped(zoo: Zoo) -> None:
    status, out, err = zoo.run("list", "--head", "ccnet", "--dataset", "cityscapes")
    lines = out.splitlines()
    assert (status, err, len(lines)) == (0, "", 8)
    assert lines[0].split("\t") == [ID, "77.76", "78.87", "cityscapes", "resnet50c", "47.5M", "804.8", "6", "-"]


def test_list_on_a_terminal_leaves_out_what_is_unknown_of_all(own: Zoo) -> None:
    ids = [own.add(name, f"https://weights.invalid/{name}") for name in ("one", "two")]
    screen, terminal = os.openpty()
    command = [sys.executable, "-m", "zoo", "list", "--head", "toy"]
    environment = os.environ | {"COLUMNS": "80", "TERM": "dumb"}
    status = subprocess.run(command, cwd=own.root, env=environment, stdout=terminal).returncode
    os.close(terminal)
    header, *rows, caption = os.read(screen, 4096).decode().splitlines()
    os.close(screen)
    assert status == 0
    assert header.split() == ["id", "mIoU", "dataset", "backbone"]  # neither ms+flip nor memory, and no file is here
    assert [row.split() for row in rows] == [[id, "50.00", "camvid", "resnet50c"] for id in ids]
    assert caption.strip() == "2 of the zoo's weights"


def test_list_imports_nothing_heavy(zoo: Zoo) -> None:
    heavy = "{'torch', 'numpy', 'rich', 'fsspec', 'filelock', 'lightning_app'}"
    last_words = f"import atexit, sys; atexit.register(lambda: print(*{heavy} & {{*sys.modules}}))"
    status, out, _ = zoo.run("list", before=last_words)
    *rows, last = out.splitlines()
    assert (status, last) == (0, "")
    assert [row.split("\t")[0] for row in rows] == [entry.id for entry in index.list_entries()]


def test_list_sorted_and_filtered(zoo: Zoo) -> None:
    _, out, _ = zoo.run("list", "--dataset", "cityscapes", "--backbone", "hr48", "--min-miou", "80.9", "--sort", "miou")
    figures = [float(line.split("\t")[1]) for line in out.splitlines()]
    assert figures == sorted(figures, reverse=True)
    assert min(figures) >= 80.9
    assert out.startswith("ocrnet_hr48_cityscapes-512x1024_160k\t81.35")


@pytest.mark.parametrize("name", ["nonlocal_net", "NonLocal", " nonlocal_NET "])
def test_list_takes_both_names_of_a_head(zoo: Zoo, name: str) -> None:
    _, out, _ = zoo.run("list", "--head", name)
    assert len(out.splitlines()) == len(index.list_entries(head="nonlocal_net")) > 16


def test_list_as_json_tells_everything(zoo: Zoo) -> None:
    _, out, _ = zoo.run("list", "--head", "emanet", "--dataset", "cityscapes", "--json")
    entries = json.loads(out)
    assert len(entries) == 4
    assert entries[0]["decode_head"]["num_bases"] == 64
    assert entries[0]["backbone"]["name"] == "resnet50c"
    assert entries[0]["weights_licence"] == "Apache-2.0"


def test_list_of_what_may_be_used_commercially(zoo: Zoo) -> None:
    status, out, err = zoo.run("list", "--commercial", "--dataset", "cityscapes")
    assert (status, out) == (0, "")
    assert err == "None whose three licences all allow commercial use (contextzoo zoo show ID says why)\n"


def test_show_tells_everything(zoo: Zoo) -> None:
    status, out, _ = zoo.run("show", "psanet_r101-d8_cityscapes-769x769_80k")
    assert status == 0
    for part in (
        "PSAHead(in_channels=2048, in_index=3, channels=512, mask_size=[97, 97]",
        "resnet101c, output stride 8",
        "Cityscapes, 19 classes",
        "79.69 on val, windows of 769x769 every 513x513 pixels, align_corners on (published by OpenMMLab)",
        "80000 steps of 8 crops of 769x769, SGD 0.01",
        "7665827b (the first 8 digits, all that is published)",
        "Apache-2.0",
        "Cityscapes terms: non-commercial research and teaching",
        "contextzoo test --weights psanet_r101-d8_cityscapes-769x769_80k --data Cityscapes --data.root DIR",
    ):
        assert part in out


def test_show_of_weights_that_tell_nothing(own: Zoo, server: Server) -> None:
    id = own.add("own", f"{server.url}/good")
    assert "Toy, as the file tells once it is here" in own.run("show", id)[1]
    assert own.run("download", id)[0] == 0
    status, out, _ = own.run("show", id)  # no safetensors file
    assert status == 0
    assert re.search(r"^decode head +\w+, as the file tells$", out, re.MULTILINE)


def test_show_of_drawn_data_asks_for_no_root(own: Zoo) -> None:
    own.add("drawn", "https://weights.invalid/x")
    path = own.root / "zoo" / "index" / "semantic" / "toy.toml"
    path.write_text(path.read_text().replace('dataset = "camvid"', 'dataset = "context-probe"'))
    status, out, _ = own.run("show", "toy_r50-d8_camvid-8x8_drawn")
    assert status == 0
    lines = [line.split(None, 2)[2] for line in out.splitlines() if line.startswith(("training data", "measure again"))]
    assert lines[0] == datasets()["context-probe"].terms
    assert lines[1].endswith("--data ContextProbe")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["lsit"], 'Unknown command "lsit". Did you mean "list"?'),
        (
            ["list", "--dataest", "x"],
            'Unknown argument "--dataest". Did you mean "--dataset"? (contextzoo zoo list --help)',
        ),
        (["list", "--head", "ccent"], 'Unknown head "ccent". Did you mean "ccnet"?'),
        (["list", "--sort", "mIuo"], 'Unknown --sort "mIuo". Did you mean "miou"?'),
        (["list", "--min-miou", "high"], "argument --min-miou: 'high' is no number from 0 to 100"),
        (["show", ID[:-1]], f'Unknown weights "{ID[:-1]}". Did you mean "{ID}"? (contextzoo zoo list)'),
        (["show", ID.upper()], f'Unknown weights "{ID.upper()}". Did you mean "{ID}"? (contextzoo zoo list)'),
        (["show", ""], 'Unknown weights "". (contextzoo zoo list)'),
        (["show", "x" * 5000], f'Unknown weights "{"x" * 100}...". (contextzoo zoo list)'),
        (["show", "a\nb\x1b[31m\u202e"], r'Unknown weights "a\nb\x1b[31m\u202e". (contextzoo zoo list)'),
        (["sh\now"], r'Unknown command "sh\now". Did you mean "show"?'),
        (["remove", "*"], 'Unknown weights "*". (contextzoo zoo list)'),
        (["where", "/etc/passwd"], 'Unknown weights "/etc/passwd". (contextzoo zoo list)'),
        (["list", "--head", ""], 'Unknown head "". Known: a2net, '),
        (["list", "--min-miou", "nan"], "argument --min-miou: 'nan' is no number from 0 to 100"),
        (["download", ID, "--to", ""], "argument --to: an empty name; the folder here is ."),
        (["download", ID, "ccnet"], 'Unknown weights "ccnet".'),
        (["show"], "the following arguments are required: id"),
    ],
)
def test_bad_input_is_one_line(zoo: Zoo, args: list[str], message: str) -> None:
    status, out, err = zoo.run(*args, CONTEXTZOO_OFFLINE="1")
    assert (status, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_no_command_shows_the_commands(zoo: Zoo) -> None:
    status, out, _ = zoo.run()
    assert status == 0
    assert "download" in out


def test_offline_says_where_the_file_would_be(zoo: Zoo, tmp_path: Path) -> None:
    status, _, err = zoo.run("download", ID, CONTEXTZOO_OFFLINE="1", CONTEXTZOO_HOME=str(tmp_path))
    assert status == 2
    assert err == f"{ID}: CONTEXTZOO_OFFLINE is set: put the file at {tmp_path / ID}.pth, or unset it\n"


def test_check(own: Zoo) -> None:
    count = len(index.list_entries())
    assert count >= 383
    assert own.run("check")[:2] == (0, f"{count} entries of {len(index.heads())} heads ok\n")
    path = own.root / "zoo" / "index" / "semantic" / "ccnet.toml"
    text = path.read_text()
    path.write_text(text.replace("mIoU = 77.76,", "mIoU = 7776,", 1))
    line = text.splitlines().index("metrics = { mIoU = 77.76, mIoU_ms = 78.87 }") + 1
    rule = "metrics: {'mIoU': 7776, 'mIoU_ms': 78.87}: mIoU must be per cent, 0 to 100"
    assert own.run("check") == (2, "", f"{path}:{line}: {ID}: {rule}\n")


def test_the_life_of_a_download(server: Server, own: Zoo) -> None:
    one, two = own.add("one", f"{server.url}/good"), own.add("two", f"{server.url}/good?")
    path = own.home / f"{one}.safetensors"
    assert own.run("where", one) == (1, "", f"{one} is not here; it would land at {path}\n")

    status, out, err = own.run("download", one, two)
    assert (status, err) == (0, "")
    assert out == "".join(f"{id}: 4 MB  sha256 {SHA256[:4]}..{SHA256[-2:]} ok\n" for id in (one, two))
    assert own.run("where", one) == (0, f"{path}\n", "")
    assert [line.split("\t")[0] for line in own.run("list", "--local")[1].splitlines()] == [one, two]
    assert own.run("verify") == (0, "2 ok\n", "")
    assert own.run("download", one)[1] == f"{one}: already here, verified\n"

    path.write_bytes(CONTENT[1:])
    assert own.run("verify", "--all") == (1, f"1 ok, 1 CORRUPT {one}\n", "")
    assert own.run("verify", "--all", two) == (2, "", "verify takes ids or --all, not both\n")

    path.with_suffix(".pth.part").touch()
    kept = ("one.txt", f"{one}.txt", f"{one}-b.pth", f"x{one}.pth", f"{one}.pth.part.txt", f"{one}*.pth", f"{two}x.pth")
    for name in kept:
        (own.home / name).touch()
    assert own.run("remove", one, two)[:2] == (0, f"{one}: removed\n{two}: removed\n")
    assert sorted(path.name for path in own.home.iterdir()) == sorted(kept)
    assert own.run("verify", one) == (1, f"0 ok, 1 not here {one}\n", "")


def test_verify_looks_at_what_was_converted(server: Server, own: Zoo) -> None:
    id = own.add("pickle", f"{server.url}/good")
    toml = own.root / "zoo" / "index" / "semantic" / "toy.toml"
    theirs = 'format = "openmmlab"\nalign_corners = false\ndecode_head = { type = "FCNHead" }'
    toml.write_text(toml.read_text().replace('format = "safetensors"', theirs))
    assert own.run("download", id)[0] == 0
    copy = own.home / f"{id}.safetensors"
    kinds = (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.uint8,
        torch.bool,
    )
    tensors = {f"ü{kind}": torch.arange(6).reshape(2, 3).to(kind) for kind in kinds}
    tensor_files.write(copy, tensors | {"one": torch.tensor(1), "none": torch.zeros(0, 3)}, {"source": "ä.pth"})
    assert own.run("verify") == (0, "1 ok\n", "")
    whole = copy.read_bytes()
    for place in (0, 5, 9, 60, len(whole) // 2, len(whole) - 1):
        copy.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = f"1 ok, 1 CORRUPT {id}.safetensors (made anew at the next use)\n"
        assert own.run("verify", id) == (1, found, ""), place
    copy.write_bytes(whole[:-1])
    assert own.run("verify")[0] == 1
    copy.write_bytes(b"")
    assert own.run("verify")[0] == 1
    assert own.run("remove", id)[1] == f"{id}: removed\n"
    assert not list(own.home.iterdir())


def test_download_to_a_folder(server: Server, own: Zoo, tmp_path: Path) -> None:
    id = own.add("to", f"{server.url}/good")
    assert own.run("download", id, "--to", "some/folder")[0] == 0
    assert (tmp_path / "some" / "folder" / f"{id}.safetensors").read_bytes() == CONTENT
    assert not own.home.exists()


def test_the_same_path_on_another_host(server: Server, own: Zoo) -> None:
    """By mirrors.toml, for every entry at once; the bytes from there are held to the same hash."""
    rule = f'"{server.url}/404?" = ["{server.url}/wrong?", "{server.url}/"]\n'
    (own.root / "zoo" / "mirrors.toml").write_text(rule)
    id = own.add("mirrored", f"{server.url}/404?good")
    assert f"mirrors          {server.url}/wrong?good, {server.url}/good\n" in own.run("show", id)[1]
    assert own.run("download", id)[:2] == (0, f"{id}: 4 MB  sha256 {SHA256[:4]}..{SHA256[-2:]} ok\n")
    assert [request.path for request in server.requests] == ["/404?good", "/wrong?good", "/good"]
    assert own.run("verify", id) == (0, "1 ok\n", "")


@pytest.mark.parametrize("rule", ['"http://x/" = "http://y/"', '"http://x/" = [1]', "nothing"])
def test_a_wrong_rule_of_mirrors_is_named(own: Zoo, rule: str) -> None:
    path = own.root / "zoo" / "mirrors.toml"
    path.write_text(rule)
    status, out, err = own.run("check")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(str(path))


def test_weights_that_ship_with_the_repository(server: Server, own: Zoo, tmp_path: Path) -> None:
    id = own.add("shipped", "checkpoints/toy.safetensors", [f"{server.url}/good"])
    shipped = own.root / "checkpoints" / "toy.safetensors"
    shipped.write_bytes(CONTENT)
    assert own.run("where", id)[1] == f"{shipped}\n"
    assert own.run("download", id)[1] == f"{id}: ships with the repository, verified\n"
    assert own.run("download", id, "--to", "copy", CONTEXTZOO_OFFLINE="1")[0] == 0
    assert (tmp_path / "copy" / f"{id}.safetensors").read_bytes() == CONTENT
    assert server.requests == []
    assert own.run("remove", id)[1] == f"{id}: was not downloaded\n"
    assert shipped.exists()

    shipped.unlink()  # as in an installed package, which has no such folder: the mirror serves
    assert own.run("download", id)[0] == 0
    assert own.run("where", id)[1] == f"{own.home / id}.safetensors\n"


def test_shipped_weights_of_an_installed_package(server: Server, own: Zoo, tmp_path: Path) -> None:
    """The mark in the list, the remedy in a line, and what the remedy does."""
    id = own.add("shipped", "checkpoints/shipped/good")
    shutil.rmtree(own.root / "checkpoints")
    home = str(tmp_path / "home")

    def run(*typed: str, **environment: str) -> tuple[int, str, str]:
        return own.run(*typed, CONTEXTZOO_HOME=home, **environment)

    remedy = "ships with the repository: run from a checkout, or set CONTEXTZOO_SHIPPED to its folder checkpoints or to"
    assert run("list", "--head", "toy")[1].split()[-1] == "repository"
    assert remedy in run("show", id)[1]
    status, out, err = run("download", id)
    assert (status, out) == (2, "")
    assert err == f"{id}: checkpoints/shipped/good {remedy} an address of that\n"

    assert run("list", "--head", "toy", CONTEXTZOO_SHIPPED=server.url)[1].split()[-1] == "-"
    status, out, _ = run("download", id, CONTEXTZOO_SHIPPED=f"{server.url}/")
    assert (status, out) == (0, f"{id}: 4 MB  sha256 {SHA256[:4]}..{SHA256[-2:]} ok\n")
    assert server.requests[-1].path == "/shipped/good"
    assert run("list", "--head", "toy")[1].split()[-1] == "yes"
    assert run("remove", id)[0] == 0
    assert run("download", id, CONTEXTZOO_SHIPPED=server.url, CONTEXTZOO_OFFLINE="1")[0] == 2

    clone = tmp_path / "a clone" / "checkpoints"
    (clone / "shipped").mkdir(parents=True)
    (clone / "shipped" / "good").write_bytes(CONTENT)
    assert run("where", id, CONTEXTZOO_SHIPPED=str(clone)) == (0, f"{clone}/shipped/good\n", "")
    assert run("download", id, CONTEXTZOO_SHIPPED=str(clone))[1] == f"{id}: ships with the repository, verified\n"
    (clone / "shipped" / "good").write_bytes(CONTENT[1:])
    status, _, err = run("download", id, CONTEXTZOO_SHIPPED=str(clone), CONTEXTZOO_OFFLINE="1")
    assert status == 2
    assert err.endswith("wrong bytes, their sha256 is not the index's\n")


@pytest.mark.parametrize("place", ["ftp://127.0.0.1/x", "nowhere", "http://", "-"])
def test_a_place_of_shipped_weights_that_is_none(zoo: Zoo, place: str) -> None:
    status, out, err = zoo.run("list", "--head", "ccnet", CONTEXTZOO_SHIPPED=place)
    assert (status, out) == (2, "")
    assert err == (f'CONTEXTZOO_SHIPPED is "{place}": neither a folder nor an address (http(s), file, s3, gs, hf)\n')


@pytest.mark.parametrize(
    ("home", "message"),
    [
        ("{}/file", "{}/file: File exists"),
        ("{}/file/below", "{}/file/below: Not a directory"),
        ("/proc/zoo", "/proc/zoo: No such file or directory"),
        ("~nobody-of-that-name/x", "No home folder is known here: set CONTEXTZOO_HOME to the folder of downloads"),
        (f"/{'x' * 5000}", f"/{'x' * 499}...: File name too long"),
    ],
)
def test_a_cache_that_cannot_be(own: Zoo, tmp_path: Path, home: str, message: str) -> None:
    id = own.add("x", "http://127.0.0.1:9/x")
    (tmp_path / "file").touch()
    home, message = home.format(tmp_path), message.format(tmp_path)
    assert own.run("download", id, CONTEXTZOO_HOME=home) == (2, "", f"{message}\n")
    status, _, err = own.run("list", "--head", "toy", CONTEXTZOO_HOME=home)
    assert (status, err) == ((2, f"{message}\n") if "~" in home else (0, ""))


def test_no_home_at_all(own: Zoo) -> None:
    shutil.rmtree(own.root / "checkpoints")
    nobody = (
        "import os, pwd\nos.environ.pop('HOME', None)\ndef getpwuid(uid): raise KeyError(uid)\npwd.getpwuid = getpwuid"
    )
    for typed in (["where", ID], ["list"], ["verify"], ["download", ID], ["remove", ID]):
        status, out, err = own.run(*typed, before=nobody)
        assert (status, out) == (2, "")
        assert err == "No home folder is known here: set CONTEXTZOO_HOME to the folder of downloads\n"


def test_an_output_that_is_full(zoo: Zoo) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "zoo", "list"], cwd=zoo.root, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == b"Input or output: No space left on device\n"


def test_an_installed_package_keeps_downloads_in_the_users_cache(own: Zoo, tmp_path: Path) -> None:
    shutil.rmtree(own.root / "checkpoints")
    _, _, err = own.run("where", ID, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert err.endswith(f"would land at {tmp_path}/cache/contextzoo/{ID}.pth\n")
