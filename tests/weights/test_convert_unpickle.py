"""Reading checkpoints from anywhere: nothing in them runs, all their tensors arrive."""

import contextlib
import io
import os
import pickle
import struct
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lightning_app.reading import tensor_files
from lightning_app.reading.unpickle import Placeholder, unpickle
from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.tensors import read_tensors

ZIP = [True, False]  # torch.save's format, and the one before torch 1.6


class Foreign:
    """An object of a class that a reader does not have, as mmengine puts into its checkpoints."""

    def __init__(self) -> None:
        self.history = [1, 2, 3]

    def __reduce__(self) -> Any:
        return (Gadget("mmengine.logging.history_buffer", "HistoryBuffer"), ([1.5, 2.5], 2), {"max_length": 10})


class Gadget:
    """Pickles as a reference to ``module.name`` without importing it."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """Pickles as ``function(*args)``, optionally with a state that is set on the result."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.function, self.args, self.state = function, args, state

    def __reduce__(self) -> Any:
        return (self.function, self.args, self.state) if self.state is not None else (self.function, self.args)


class Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes gadgets as global references; everything else as usual."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Gadget):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.args)
            self.write(pickle.REDUCE)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)

    def save_reduce(self, func: Any, args: Any, *rest: Any, **options: Any) -> None:
        if isinstance(func, Gadget):
            self.save(Call(func, *args, state=rest[0] if rest else None))
        else:
            super().save_reduce(func, args, *rest, **options)

    @classmethod
    def dumps(cls, obj: Any) -> bytes:
        file = io.BytesIO()
        cls(file, 2).dump(obj)
        return file.getvalue()


class PickleModule:
    """What torch.save needs of a pickle module."""

    Pickler = Pickler

    @staticmethod
    def dump(obj: Any, file: Any, protocol: int = 2) -> None:
        Pickler(file, protocol).dump(obj)


def save(content: Any, path: Path, *, zipped: bool = True) -> Path:
    torch.save(content, path, pickle_module=PickleModule, _use_new_zipfile_serialization=zipped)
    return path


def state() -> "OrderedDict[str, Tensor]":
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(4, generator=generator)
    return OrderedDict(
        {
            "query.weight": shared,
            "key.weight": shared,  # one storage, two names
            "transposed": torch.randn(3, 5, generator=generator).T,
            "half": torch.randn(2, 2, generator=generator).half(),
            "brain": torch.randn(2, generator=generator).bfloat16(),
            "parameter": torch.nn.Parameter(torch.randn(2, 3, generator=generator)),
            "bn.num_batches_tracked": torch.tensor(7),
        }
    )


def assert_same(actual: dict[str, Tensor]) -> None:
    expected = state()
    assert list(actual.keys()) == sorted(expected) or list(actual.keys()) == list(expected)
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype
        assert torch.equal(actual[name], tensor.detach())


@pytest.mark.parametrize("zipped", ZIP)
@pytest.mark.parametrize(
    "meta",
    [
        {"epoch": 3, "classes": ("road", "sky")},
        {"hook": Foreign()},
        {"time": Call(Gadget("numpy.core.multiarray", "scalar"), Call(Gadget("numpy", "dtype"), "f8"), b"12345678")},
        {"log": Call(Gadget("collections", "defaultdict"), Gadget("builtins", "list")), "path": Path("run")},
    ],
    ids=["plain", "foreign", "numpy", "containers"],
)
def test_tensors_arrive_and_foreign_objects_are_inert(tmp_path: Path, zipped: bool, meta: dict[str, Any]) -> None:
    path = save({"meta": meta, "state_dict": state()}, tmp_path / "model.pth", zipped=zipped)
    content = unpickle(path)
    assert_same(content["state_dict"])
    assert_same(read_tensors(path))
    foreign = [value for value in content["meta"].values() if isinstance(value, Placeholder)]
    assert bool(foreign) == (meta.keys() != {"epoch", "classes"})


def gadgets(touch: Path) -> dict[str, Any]:
    """Ways to run ``touch`` on loading."""
    shell, code = f"touch {touch}", f"open({str(touch)!r}, 'w')"
    system, evaluate = Gadget("os", "system"), Gadget("builtins", "eval")
    getattribute = Gadget("builtins", "getattr")
    rebuild = Gadget("torch._utils", "_rebuild_tensor_v2")
    return {
        "os.system": Call(system, shell),
        "posix.system": Call(Gadget("posix", "system"), shell),
        "eval": Call(evaluate, code),
        "exec": Call(Gadget("builtins", "exec"), code),
        "subprocess": Call(Gadget("subprocess", "Popen"), ["touch", str(touch)]),
        "getattr": Call(Call(getattribute, Call(Gadget("builtins", "__import__"), "os"), "system"), shell),
        "dotted": Call(Gadget("torch.serialization", "os.system"), shell),
        "partial": Call(Call(Gadget("functools", "partial"), system, shell)),
        "pickle in pickle": Call(Gadget("pickle", "loads"), pickle.dumps(Call(os.system, shell))),
        "torch.load": Call(Gadget("torch", "load"), str(touch)),
        "torch.hub": Call(Gadget("torch.hub", "load"), str(touch.parent), "model"),
        "jit": Call(Gadget("torch.jit", "load"), str(touch)),
        "setstate": Call(
            Gadget("lightning_app.backbones.timm", "TimmBackbone"), state={"forward": Call(system, shell)}
        ),
        "state of a function": Call(rebuild, Call(evaluate, code), state=(None, {"__code__": Call(evaluate, code)})),
        "state of a class": [Gadget("collections", "OrderedDict"), Call(evaluate, code)],
        "storage": Call(rebuild, Call(Gadget("torch", "FloatStorage._new_shared_fd"), str(touch)), 0, (1,), (1,)),
        "nested": {
            "a": [(1, {"b": Call(Gadget("operator", "methodcaller"), "system", shell)})],
            "c": Call(system, shell),
        },
        "key": {Call(evaluate, code): 1},
    }


@pytest.mark.parametrize("zipped", ZIP)
@pytest.mark.parametrize("name", gadgets(Path("x")))
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, name: str, zipped: bool) -> None:
    touch = tmp_path / "touched"
    path = tmp_path / "model.pth"
    save({"state_dict": state(), "meta": gadgets(touch)[name]}, path, zipped=zipped)
    before = sorted(tmp_path.iterdir())
    try:
        assert_same(read_tensors(path))
    except InputError:
        assert sorted(tmp_path.iterdir()) == before
    assert not touch.exists()


def test_the_gadgets_do_run_where_pickles_are_trusted(tmp_path: Path) -> None:
    """The test above would otherwise prove nothing."""
    for name in ("os.system", "posix.system", "eval", "exec", "getattr", "partial", "nested", "key"):
        touch = tmp_path / name
        with contextlib.suppress(Exception):  # some build nothing that a pickle can hold
            pickle.loads(Pickler.dumps(gadgets(touch)[name]))
        assert touch.exists()


def test_trusted_functions_keep_their_attributes(tmp_path: Path) -> None:
    """A pickle may name the functions that build tensors, but not alter them."""

    class Alter(Call):
        pass

    class Writer(Pickler):
        def save(self, obj: Any, save_persistent_id: bool = True) -> None:
            if isinstance(obj, Alter):
                self.save(obj.function)
                self.save(obj.state)
                self.write(pickle.BUILD)
            else:
                super().save(obj, save_persistent_id)

    class Module(PickleModule):
        Pickler = Writer

        @staticmethod
        def dump(obj: Any, file: Any, protocol: int = 2) -> None:
            Writer(file, protocol).dump(obj)

    for target in (
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("foreign", "Class"),
    ):
        path = tmp_path / "model.pth"
        altered = Alter(Gadget(*target), state=(None, {"__defaults__": (1,), "__call__": 2, "__new__": 3}))
        torch.save({"state_dict": state(), "meta": [altered, Foreign()]}, path, pickle_module=Module)
        with contextlib.suppress(InputError):
            unpickle(path)
    assert_same(unpickle(save({"state_dict": state(), "meta": Foreign()}, path))["state_dict"])


def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.jit.script(torch.nn.Linear(1, 1)).save(path)
    with pytest.raises(InputError, match="TorchScript"):
        read_tensors(path)


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif how == "text":
        path.write_text("<html>404</html>")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "other zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("readme.txt", "hello")
    elif how == "no state":
        torch.save([1, 2], path)
    elif how == "not only tensors":
        torch.save({"state_dict": {"a": torch.ones(1), "b": 3}}, path)
    elif how == "foreign tensor":
        save({"state_dict": {"a": torch.ones(1), "b": Foreign()}}, path)
    else:
        path.unlink()


@pytest.mark.parametrize("zipped", ZIP)
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "no checkpoint that can be read safely"),
        ("text", "no checkpoint that can be read safely"),
        ("empty", "is empty. Get the file again"),
        ("other zip", "no checkpoint that can be read safely"),
        ("no state", "holds no state dict, only list"),
        ("not only tensors", "holds more than tensors: b"),
        ("foreign tensor", "holds more than tensors: b"),
        ("missing", "no such file"),
    ],
)
def test_what_is_no_checkpoint_is_named_and_leaves_nothing(
    tmp_path: Path, zipped: bool, how: str, message: str
) -> None:
    path = save({"state_dict": state()}, tmp_path / "model.pth", zipped=zipped)
    damage(path, how)
    with pytest.raises(InputError, match=f"model.pth.*{message}") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)
    assert [each.name for each in tmp_path.iterdir() if each != path] == []


def test_the_second_reading_is_of_safetensors(tmp_path: Path) -> None:
    path = save({"state_dict": state(), "meta": Foreign()}, tmp_path / "model.pth")
    assert_same(read_tensors(path))
    beside = tmp_path / "model.safetensors"
    with safe_open(beside, "pt") as file:
        header = file.metadata()
    assert header["source"] == "model.pth"
    assert header["size"] == str(path.stat().st_size)
    assert len(header["sha256"]) == 64
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.pth", "model.safetensors"]

    marked = load_file(beside) | {"mark": torch.ones(1)}
    tensor_files.write(beside, marked, header)
    assert "mark" in read_tensors(path)
    assert "mark" in read_tensors(beside)

    time.sleep(0.01)
    save({"state_dict": {"other": torch.zeros(2)}}, path)  # another file under the same name
    assert read_tensors(path).keys() == {"other"}
    assert load_file(beside).keys() == {"other"}


def test_a_stranger_of_that_name_is_left_alone(tmp_path: Path) -> None:
    path = save({"state_dict": state()}, tmp_path / "model.pth")
    beside = tmp_path / "model.safetensors"
    for content in (b"no safetensors", struct.pack("<Q", 2) + b"{}"):
        beside.write_bytes(content)
        assert_same(read_tensors(path))
        assert beside.read_bytes() == content
    beside.write_bytes(b"no safetensors")
    with pytest.raises(InputError, match=r"model.safetensors is no safetensors file"):
        read_tensors(beside)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_still_reads(tmp_path: Path) -> None:
    path = save({"state_dict": state()}, tmp_path / "model.pth")
    tmp_path.chmod(0o500)
    try:
        assert_same(read_tensors(path))
    finally:
        tmp_path.chmod(0o700)
