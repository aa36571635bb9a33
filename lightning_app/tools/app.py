"""``contextzoo app``: drop a photograph in the browser, see what weights see, click to see where that comes from."""

import argparse
import os
from collections.abc import Sequence
from typing import Final

import zoo
from lightning_app.tools.infer import device
from lightning_app.tools.parser import Parser
from lightning_app.util.errors import InputError
from lightning_app.util.extras import install

MEGABYTES: Final = 20  # of an uploaded file


def main(args: Sequence[str]) -> int:
    """Serve the page until it is interrupted."""
    typed = _parser().parse_args(args)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio reads it
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise InputError(f"The page needs gradio: {install('app')}") from None
    from lightning_app.tools.app_page import STYLE, Networks, page, theme

    names = typed.weights or [entry.id for entry in zoo.list_entries(local=True)]
    if not names:
        raise InputError("No weights are on this machine: name some, contextzoo app --weights ID (contextzoo zoo list)")
    networks = Networks(names, typed.device)
    networks.get_first()  # or say at once that there are none of that name
    print(f"http://{typed.host}:{typed.port}   (Ctrl+C ends it)", flush=True)
    try:
        page(networks).launch(
            server_name=typed.host,
            server_port=typed.port,
            share=False,
            max_file_size=MEGABYTES * 2**20,
            show_error=False,  # but for those that the page raises: gradio's own tell folders
            quiet=True,
            footer_links=[],
            theme=theme(),
            css=STYLE,
            ssr_mode=False,
        )
    except OSError as error:
        raise InputError(f"--host {typed.host} --port {typed.port} cannot be listened on: {error}") from None
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port such as 7860")
    return int(text)


def _parser() -> Parser:
    parser = Parser(
        prog="contextzoo app",
        description="Serve a page: drop a photograph, choose one or two weights, see their classes, where they are "
        "unsure and where they differ, and click on a pixel to see where its answer comes from.",
        epilog=f"Nothing leaves this machine. Pictures of at most {MEGABYTES} MB are taken.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--weights", nargs="+", metavar="ID|PATH", help="to choose from; default: those of the zoo on this machine")
    add("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1, this machine alone")
    add("--port", type=_port, default=7860, help="default: 7860")
    add("--device", type=device, default="auto", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one")
    return parser
