"""``contextzoo cache``: what a folder of ``model.feature_cache`` holds, and removing it."""

from pathlib import Path

from lightning_app.backbones import feature_cache
from lightning_app.tools.parser import Parser
from lightning_app.util.errors import InputError, suggest


def main(args: list[str]) -> int:
    """Run the command."""
    parser = Parser(
        prog="contextzoo cache",
        description="Show what a folder of model.feature_cache holds of each backbone, or remove it.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="as given to --model.feature_cache")
    parser.add_argument(
        "--clean",
        nargs="*",
        metavar="NAME",
        help="remove the features of these backbones, by the names that the list gives them; without a name, all",
    )
    options = parser.parse_args(args)
    folder: Path = options.folder.expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    rooms = {room.path.name: room for room in feature_cache.rooms(folder)}
    for name in options.clean or ():
        if name not in rooms:
            raise InputError(
                f'{folder} holds no features of "{name}".{suggest(name, rooms)} (contextzoo cache {folder})'
            )
    if not rooms:
        print(f"{folder} holds no features")
    for name, room in rooms.items():
        chosen = options.clean is not None and name in (options.clean or rooms)
        if chosen:
            feature_cache.clean(room)
        print(f"{'Removed ' if chosen else ''}{room}")
    return 0
