"""mmsegmentation's configuration files as data: parsed, never executed."""

import ast
import json
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lightning_app.util.errors import InputError
from lightning_app.util.files import check_file

LARGEST: Final = 2**20  # bytes of a file
DEEPEST: Final = 10  # files that build on one another
NUMBERS: Final = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
IMAGENET: Final = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True}


def read_model(path: Path) -> dict[str, Any]:
    """The model of a config.py or config.json: backbone, neck, heads, preprocess, test_cfg, and the test size as "fit".

    Raises:
        InputError: no such file or one that it builds on, or it holds what is no data or no model that we know.
    """
    config = read(path)
    model = config.get("model")
    if not isinstance(model, dict) or not {"backbone", "decode_head"} <= model.keys():
        raise InputError(f"{path} describes no model with backbone and decode_head")
    if (kind := model.get("type")) not in ("EncoderDecoder", "CascadeEncoderDecoder"):
        raise InputError(f"{path}: model type {kind!r} has no counterpart here, only (Cascade)EncoderDecoder")
    backbone = model["backbone"]
    dilated = any(step != 1 for step in backbone.get("dilations", ()))
    if dilated and "ResNet" in str(backbone.get("type")) and not backbone.get("contract_dilation"):
        raise InputError(f"{path}: a dilated ResNet without contract_dilation=True has no counterpart here")
    extra = model.get("auxiliary_head")
    return {
        "backbone": backbone,
        "neck": model.get("neck"),
        "decode_head": model["decode_head"],
        "auxiliary_head": extra[0] if isinstance(extra, list) and len(extra) == 1 else extra or None,
        "preprocess": _preprocess(config, path),
        "test_cfg": model.get("test_cfg") or config.get("test_cfg") or {"mode": "whole"},
        "fit": _test_size(config),
    }


def read(path: Path, depth: int = 0) -> dict[str, Any]:
    """The whole configuration, with those that it builds on (``_base_``) below it.

    Raises:
        InputError: as ``read_model``.
    """
    check_file(path)
    if path.stat().st_size > LARGEST or depth > DEEPEST:
        raise InputError(f"{path}: larger, or built on more files, than a configuration is")
    try:
        text = path.read_text()
        if path.suffix == ".json":
            own = json.loads(text)
            base = {}
        else:
            body = ast.parse(text).body
            base = _bases(body, path, depth)
            own = _assigned(body, base, path)
        if not isinstance(own, dict):
            raise TypeError("no keys and values")
    except InputError:
        raise
    except (SyntaxError, ValueError, TypeError, KeyError, RecursionError, ArithmeticError, LookupError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"{path} is no configuration that can be read as data ({reason})") from None
    return _merged(base, own)


def _bases(body: list[ast.stmt], path: Path, depth: int) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_base_":
            names = ast.literal_eval(node.value)
            for name in [names] if isinstance(names, str) else names:
                base = path.parent / name
                if not base.is_file():
                    raise InputError(f"{path} builds on {name}, which is not there: put it at {base}")
                merged = _merged(merged, read(base, depth + 1))
    return merged


def _assigned(body: list[ast.stmt], base: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Every variable that a file sets at its top level."""
    names: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets):
            for target in node.targets:
                assert isinstance(target, ast.Name)
                if target.id != "_base_":
                    names[target.id] = _Value(names, base, path).of(node.value)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            pass  # a docstring
        else:
            raise InputError(f"{path}, line {node.lineno}: {ast.unparse(node)[:80]!r} is no data, and nothing is run")
    return names


class _Value:
    """The value of an expression of literals, dict(...) calls and names that were set before."""

    def __init__(self, names: Mapping[str, Any], base: Mapping[str, Any], path: Path) -> None:
        self.names, self.base, self.path = names, base, path

    def of(self, node: ast.expr | None) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self.of(item) for item in items]
            case ast.Dict(keys=keys, values=values):
                return self._dict(
                    (None if key is None else self.of(key), value) for key, value in zip(keys, values, strict=False)
                )
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=pairs):
                return self._dict((pair.arg, pair.value) for pair in pairs)
            case ast.Set(elts=[ast.Set(elts=[inner])]):  # {{_base_.x}}
                return self.of(inner)
            case ast.Name(id="_base_"):
                return self.base
            case ast.Name(id=name) if name in self.names or name in self.base:
                return self.names[name] if name in self.names else self.base[name]
            case ast.Attribute(value=value, attr=key):
                return self.of(value)[key]
            case ast.Subscript(value=value, slice=ast.Constant(value=key)):
                return self.of(value)[key]
            case ast.UnaryOp(op=ast.USub(), operand=value):
                return -self.of(value)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in NUMBERS:
                one, other = self.of(left), self.of(right)
                if all(isinstance(each, int | float) for each in (one, other)):
                    return NUMBERS[type(op)](one, other)
                if isinstance(op, ast.Add) and isinstance(one, list) and isinstance(other, list):
                    return one + other
        where = f"{self.path}, line {getattr(node, 'lineno', '?')}"
        raise InputError(f"{where}: {ast.unparse(node)[:80] if node else node!r} is no data, and nothing is run")

    def _dict(self, pairs: Any) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for key, value in pairs:
            made |= self.of(value) if key is None else {key: self.of(value)}  # None is **
        return made


def _merged(base: Mapping[Any, Any], own: Mapping[Any, Any]) -> dict[Any, Any]:
    """``own`` over ``base``, dictionary by dictionary, as mmengine merges them."""
    merged = dict(base)
    for key, value in own.items():
        below = merged.get(key)
        if isinstance(value, Mapping):
            over = {name: each for name, each in value.items() if name != "_delete_"}
            keep = isinstance(below, Mapping) and not value.get("_delete_")
            merged[key] = _merged(below if keep and isinstance(below, Mapping) else {}, over)
        else:
            merged[key] = value
    return merged


def _preprocess(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Mean and standard deviation of releases 1.x and 0.x; those of ImageNet where a file has neither."""
    model = config["model"]
    if found := model.get("data_preprocessor") or config.get("data_preprocessor"):
        found = {"bgr_to_rgb": False, **found}
    elif found := config.get("img_norm_cfg"):
        found = {**found, "bgr_to_rgb": found.get("to_rgb", True)}
    found = {**IMAGENET, **(found or {})}
    if not found["bgr_to_rgb"]:
        raise InputError(f"{path}: bgr_to_rgb=False has no counterpart here: images are RGB")
    mean, std = ([float(value) for value in found[key]] for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or not all(0 <= value <= 255 for value in mean) or min(std) <= 0:
        raise InputError(f"{path}: mean {found['mean']} and std {found['std']} are not those of RGB images, 0..255")
    return found


def _test_size(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Longer and shorter side of the box that images fill in the test pipeline, where it says so."""
    for step in config.get("test_pipeline") or []:
        size = step.get("scale") or step.get("img_scale") if isinstance(step, Mapping) else None
        if isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size):
            return max(size), min(size)
    return None
