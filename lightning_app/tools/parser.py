"""The parser of the tools: what is wrong with a command line is one line."""

import argparse
from typing import NoReturn

from lightning_app.util.errors import InputError


class Parser(argparse.ArgumentParser):
    """argparse without its usage page before an error."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} ({self.prog} --help)")
