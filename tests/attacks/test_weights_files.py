"""Weight files that are damaged or made to harm: one line, or a model whose numbers are those that were saved."""

import contextlib
import json
import os
import random
import resource
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attacks.tally import Tally
from commands import run
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from weights import ENTRY, describe_tiny, openmmlab_file, write_tiny

from lightning_app.reading import tensor_files
from lightning_app.util.errors import InputError
from lightning_app.weights.description import HEADER
from lightning_app.weights.load import load

MEMORY = 400 * 2**20  # bytes that reading a file of megabytes may add to the process's peak


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def outcome(path: Path, expected: dict[str, Tensor]) -> str:
    """ "refused" in one line, "same" tensors, or what went wrong."""
    try:
        state = load(path).state_dict()
    except InputError as error:
        return "refused" if "\n" not in str(error) and len(str(error)) < 1500 else f"not one line: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "same" if all(torch.equal(state[name], each) for name, each in expected.items()) else "other numbers"


# Pickles


def weights() -> "OrderedDict[str, Tensor]":
    return OrderedDict({"backbone.conv1.weight": torch.ones(4, 3)})


def compressed(path: Path) -> None:
    """A storage of zeros that would grow a thousandfold."""
    torch.save(weights(), "plain.pth")
    with zipfile.ZipFile("plain.pth") as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, bytes(2**28) if "/data/" in name else old.read(name))


class Huge:
    """A tensor of 10^12 elements on a storage of one."""

    def __init__(self, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.shape, self.stride = shape, stride

    def __reduce__(self) -> Any:
        storage = torch.ones(1)._typed_storage()
        return torch._utils._rebuild_tensor_v2, (storage, 0, self.shape, self.stride, False, OrderedDict())


def pickled(content: Any) -> Callable[[Path], Any]:
    return lambda path: torch.save(content() if callable(content) else content, path)


def written(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


def nested_value() -> Any:
    value: Any = ["x"]
    for _ in range(60):
        value = [value, value]
    return {"state_dict": value}


PICKLES: dict[str, Callable[[Path], Any]] = {
    "stride 0": pickled({"state_dict": {"a": Huge((10**6, 10**6), (0, 0))}}),
    "beyond its storage": pickled({"state_dict": {"a": Huge((2,), (1,))}}),
    "negative": pickled({"state_dict": {"a": Huge((-1,), (1,))}}),
    "many dimensions": pickled({"state_dict": {"a": Huge((1,) * 1000, (0,) * 1000)}}),
    "no integers": pickled({"state_dict": {"a": Huge((0.5,), (1,))}}),  # type: ignore[arg-type]
    "compressed": compressed,
    "sparse": pickled({"state_dict": {"a": torch.eye(3).to_sparse()}}),
    "quantized": pickled(lambda: {"state_dict": {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}}),
    "complex": pickled({"state_dict": {"backbone.conv1.weight": torch.ones(64, 3, 7, 7, dtype=torch.complex64)}}),
    "meta": pickled({"state_dict": {"a": torch.ones(2, device="meta")}}),
    "integers": pickled({"state_dict": {"backbone.conv1.weight": torch.ones(64, 3, 7, 7, dtype=torch.int32)}}),
    "numbers for names": pickled({"state_dict": {1: torch.ones(2), float("nan"): torch.ones(2)}}),
    "no state dict": pickled({"epoch": 3}),
    "nested state dict": pickled({"state_dict": {"state_dict": weights()}}),
    "empty state dict": pickled({"state_dict": {}}),
    "a tensor": pickled(torch.ones(3)),
    "a module": pickled(lambda: torch.nn.Linear(2, 2)),
    "keys that take for ever": written(b"\x80\x02}K\x01\x85" + b"2\x86" * 60 + b"K\x01s."),  # {((1,), (1,)) ...: 1}
    "values that take for ever": pickled(nested_value),
    "a memo that lies": written(b"\x80\x02r\xff\xff\xff\x7f."),
    "a byte array that lies": written(b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"."),
    "text": written(b"<html>404</html>"),
    "empty": written(b""),
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "loop of links": lambda path: path.symlink_to(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_pickles(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], tally: Tally) -> None:
    path = tmp_path / f"{ENTRY}.pth"
    PICKLES[kind](path)
    before = peak()
    found = outcome(path, {})
    assert run(f"zoo convert {path} --like {ENTRY} --to new.safetensors") == 2
    (line,) = capsys.readouterr().err.splitlines()
    bad = found != "refused" or peak() - before > MEMORY or str(path) not in line
    tally("malformed pickles", 2, bad)
    assert not bad, f"{found}, {(peak() - before) >> 20} MB, {line}"
    assert not Path("new.safetensors").exists()


# Safetensors


def raw(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


SPEC = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
RAW: dict[str, bytes] = {
    "empty": b"",
    "short": b"\x01",
    "no header": struct.pack("<Q", 2**63),
    "a long header": struct.pack("<Q", 10**11) + b"{}",
    "no JSON": raw(b"{" * 9),
    "a list": raw([]),
    "overlapping": raw({"a": SPEC, "b": SPEC}, bytes(8)),
    "out of range": raw({"a": {**SPEC, "data_offsets": [0, 10**12]}}, bytes(8)),
    "backwards": raw({"a": {**SPEC, "data_offsets": [8, 0]}}, bytes(8)),
    "a gap": raw({"a": {**SPEC, "data_offsets": [8, 16]}}, bytes(16)),
    "another size": raw({"a": {**SPEC, "shape": [10**12]}}, bytes(8)),
    "negative": raw({"a": {**SPEC, "shape": [-2]}}, bytes(8)),
    "overflowing": raw({"a": {**SPEC, "shape": [2**62, 2**62]}}, bytes(8)),
    "unknown type": raw({"a": {**SPEC, "dtype": "F33"}}, bytes(8)),
    "truncated": raw({"a": SPEC}, bytes(7)),
    "a tail": raw({"a": SPEC}, bytes(9)),
}


@pytest.mark.parametrize("kind", RAW)
def test_safetensors(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], tally: Tally) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(RAW[kind])
    Image.new("RGB", (8, 8)).save("x.png")
    before, bad = peak(), 0
    verbs = ("test --data CamVid --weights", "fit --data CamVid --model.weights", "segment x.png --weights")
    for verb in verbs:
        assert run(f"{verb} {path}") == 2
        (line,) = capsys.readouterr().err.splitlines()
        bad += "a.safetensors" not in line
    bad += outcome(path, {}) != "refused" or peak() - before > MEMORY
    tally("malformed safetensors", 4, bad)
    assert not bad


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.to(torch.complex64),
        lambda x: x.to(torch.int32),
        lambda x: x.to(torch.bool),
        lambda x: x.to(torch.float8_e5m2),
        lambda x: torch.full_like(x, float("nan")),
        lambda x: x.flatten(),
        lambda x: x[:0],
    ],
    ids=["complex", "integers", "bool", "eight bits", "no numbers", "flat", "nothing"],
)
def test_tensors_of_another_kind(change: Callable[[Tensor], Tensor], tmp_path: Path, tally: Tally) -> None:
    path = tmp_path / "a.safetensors"
    tensors = write_tiny(path)
    tensors["head.classifier.weight"] = change(tensors["head.classifier.weight"]).contiguous()
    with contextlib.suppress(Exception):  # a type that cannot be stored is no attack
        save_file(tensors, path, {HEADER: json.dumps(describe_tiny())})
    found = outcome(path, {})
    tally("malformed safetensors", 1, found != "refused")
    assert found == "refused"


# Bits


def damaged(content: bytes, dice: random.Random) -> bytes:
    """One bit flipped, the end cut off, a stretch doubled, moved or filled with zeros."""
    start, length = dice.randrange(len(content)), dice.randrange(1, 4096)
    piece = content[start : start + length]
    match dice.choice(("flip", "flip", "cut", "double", "move", "zero")):
        case "flip":
            return content[:start] + bytes([content[start] ^ 1 << dice.randrange(8)]) + content[start + 1 :]
        case "cut":
            return content[:start]
        case "double":
            return content[:start] + piece + content[start:]
        case "move":
            return piece + content[:start] + content[start + length :]
    return content[:start] + bytes(len(piece)) + content[start + len(piece) :]


COUNTS = [pytest.param(40, id="quick"), pytest.param(1000, id="many", marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_file_that_carries_a_checksum(count: int, tmp_path: Path, tally: Tally) -> None:
    path = tmp_path / "a.safetensors"
    tensors = write_tiny(path)
    tensor_files.write(path, tensors, {"format": "pt", HEADER: json.dumps(describe_tiny())})
    content, dice, before = path.read_bytes(), random.Random(0), peak()
    assert outcome(path, tensors) == "same"
    results = []
    for _ in range(count):
        path.write_bytes(damaged(content, dice))
        results.append(outcome(path, tensors))
    bad = [found for found in results if found not in ("refused", "same")]
    tally("damaged safetensors", count, len(bad))
    assert not bad
    assert results.count("refused") > 0.9 * count
    assert peak() - before < MEMORY


def test_a_damaged_copy_is_made_anew(tmp_path: Path, tally: Tally) -> None:
    path = openmmlab_file(tmp_path)
    expected = {name: each.clone() for name, each in load(path).state_dict().items()}
    copy = path.with_suffix(".safetensors")
    content, dice = copy.read_bytes(), random.Random(1)
    results = []
    for _ in range(6):
        copy.write_bytes(damaged(content, dice))
        results.append(outcome(path, expected))
    tally("damaged copies", len(results), len(results) - results.count("same"))
    assert set(results) == {"same"}


@pytest.mark.parametrize("count", [pytest.param(6, id="quick"), pytest.param(150, id="many", marks=pytest.mark.slow)])
def test_a_damaged_pickle(count: int, tmp_path: Path, tally: Tally) -> None:
    """torch.save writes a checksum of each record, so that no damage inside them passes."""
    path = openmmlab_file(tmp_path)
    content, dice, before = path.read_bytes(), random.Random(2), peak()
    expected = {name: each.clone() for name, each in load(path).state_dict().items()}
    results = []
    for _ in range(count):
        path.with_suffix(".safetensors").unlink(missing_ok=True)
        path.write_bytes(damaged(content, dice))
        results.append(outcome(path, expected))
    bad = [found for found in results if found not in ("refused", "same")]
    tally("damaged pickles", count, len(bad))
    assert not bad
    assert peak() - before < MEMORY + 4 * len(content)
