"""The page of ``contextzoo app``, in gradio's components."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any, Final

import gradio as gr
from PIL import Image

from lightning_app.tasks.explain import explain
from lightning_app.tools.app_look import difference, drawn_larger, look, photograph
from lightning_app.util.errors import InputError
from lightning_app.weights.load import load

NONE: Final = "none"
KEPT: Final = 4  # networks in memory
STYLE: Final = """
.legend { list-style: none; padding: 0; margin: 0; display: flex; flex-wrap: wrap; gap: 4px 14px; }
.legend span { display: inline-block; width: 14px; height: 14px; border-radius: 3px; vertical-align: -2px; }
"""


class Networks(Mapping[str, Any]):
    """Weights by name, loaded when they are asked for; the last few stay in memory. A file's folder is not told."""

    def __init__(self, names: Sequence[str], device: str) -> None:
        self.sources = _by_label({Path(name): name for name in names})
        self.device = device
        self.loaded: dict[str, Any] = {}

    def get_first(self) -> Any:
        """The network of the first name; what is wrong with it is said in full, to who started the page.

        Raises:
            InputError: no such weights.
        """
        name, source = next(iter(self.sources.items()))
        self.loaded[name] = load(source, device=self.device)
        return self.loaded[name]

    def __getitem__(self, name: str) -> Any:
        if name not in self.sources:  # what a page sends is not trusted
            raise InputError("No such weights: choose from the list")
        if name not in self.loaded:
            try:
                network = load(self.sources[name], device=self.device)
            except InputError as error:
                print(error, flush=True)
                raise InputError(f"{name} cannot be loaded; the terminal says why") from None
            while len(self.loaded) >= KEPT:
                self.loaded.pop(next(iter(self.loaded)))
            self.loaded[name] = network
        return self.loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)


def _by_label(names: Mapping[Path, str]) -> dict[str, str]:
    """Names by what they are called on the page: without folders, but for those that tell files of one name apart."""
    parts = [path.parts for path in names]
    labels = [each[-1:] for each in parts]
    while twice := {label for label in labels if labels.count(label) > 1}:
        labels = [
            each[-len(label) - 1 :] if label in twice else label for each, label in zip(parts, labels, strict=True)
        ]
    return {"/".join(label): name for label, name in zip(labels, names.values(), strict=True)}


def theme() -> Any:
    """Fonts that are on every machine: the page fetches none."""
    return gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])


def page(networks: Networks) -> gr.Blocks:
    """All components and what happens between them."""
    with gr.Blocks(title="ContextZoo", analytics_enabled=False, delete_cache=(600, 600)) as made:
        gr.Markdown("# ContextZoo\nDrop a photograph. Click on what is seen to learn where the answer comes from.")
        with gr.Row():
            with gr.Column(min_width=280):
                source = gr.Image(
                    label="Photograph",
                    type="filepath",
                    sources=["upload", "clipboard"],
                    buttons=[],
                    elem_id="photograph",
                )
                source.preprocess = _path  # gradio's own opens the file, and tells its folder where it cannot
                first = gr.Dropdown(list(networks), value=next(iter(networks)), label="Weights", elem_id="first")
                second = gr.Dropdown([NONE, *networks], value=NONE, label="Compare with", elem_id="second")
                by = gr.Radio(["attention", "gradient"], value="attention", label="Explain a click by", elem_id="by")
            with gr.Column(min_width=280, scale=2):
                seen = _result("What is seen: click on it", "seen")
                words = gr.HTML(elem_id="words")
        explained = _result("Where the answer at the pixel comes from", "explained")
        because = gr.HTML(elem_id="because")
        uncertainty = _result("Where it is unsure", "uncertainty")
        with gr.Row(visible=False) as comparison:
            with gr.Column(min_width=280):
                other = _result("What the other sees", "other")
                other_words = gr.HTML(elem_id="other_words")
            with gr.Column(min_width=280):
                differing = _result("Where the two differ", "differing")
                told = gr.HTML(elem_id="told")

        def see(path: str | None, name: str) -> list[Any]:
            if not path:
                return [None, "", None, None, ""]
            one = look(networks[name], photograph(Path(path)))
            unsure = gr.update(value=one.uncertainty, visible=one.uncertainty is not None)
            return [one.picture, one.words, unsure, None, ""]

        def compare(path: str | None, name: str, compared: str) -> list[Any]:
            if not path or compared == NONE:
                return [gr.update(visible=False), None, "", None, ""]
            pixels = photograph(Path(path))
            two = look(networks[compared], pixels)
            differ = difference(pixels, look(networks[name], pixels), two)
            picture, words = differ or (
                None,
                "Only classes of pixels are compared: the two pictures stand as they are.",
            )
            where = gr.update(value=picture, visible=picture is not None)
            return [gr.update(visible=True), two.picture, two.words, where, words]

        def clicked(path: str | None, name: str, chosen: str, event: gr.SelectData) -> tuple[Image.Image, str]:
            if not path:
                raise InputError("There is no photograph: drop one first")
            network, pixels = networks[name], photograph(Path(path))
            x, y = (int(place) // drawn_larger(network, pixels) for place in event.index)
            found = explain(network, pixels, (x, y), "gradient" if chosen == "gradient" else "auto")
            if chosen == "attention" and found.by == "gradient":
                gr.Info("No block of these weights says where it looks: this is the gradient's reach")
            lines = (f"<li>{escape(line)}</li>" for line in found.lines)
            return found.picture(), f"<p>{x},{y}: {escape(found.answer)}</p><ul>{''.join(lines)}</ul>"

        how: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 1}
        compared = [comparison, other, other_words, differing, told]
        for event in (source.change, first.change):
            done = event(_told(see), [source, first], [seen, words, uncertainty, explained, because], **how)
            done.success(_told(compare), [source, first, second], compared, **how)
        second.change(_told(compare), [source, first, second], compared, **how)
        seen.select(_told(clicked), [source, first, by], [explained, because], **how)
    return made


def _result(label: str, name: str) -> gr.Image:
    return gr.Image(label=label, interactive=False, buttons=["download"], format="png", elem_id=name)


def _path(upload: Any) -> str | None:
    """Where gradio has put an uploaded file, unopened: ``photograph`` looks at what it is first."""
    return upload.path if upload else None


def _told(work: Callable[..., Any]) -> Callable[..., Any]:
    """The same work; what was wrong with the input is shown on the page, and of anything else that it failed alone."""

    @wraps(work)
    def tell(*args: Any) -> Any:
        try:
            return work(*args)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None
        except Exception as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            raise gr.Error("That failed; the terminal says why", print_exception=False) from None

    return tell
