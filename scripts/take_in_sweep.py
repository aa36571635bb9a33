"""Take what a sweep came to into docs/results, and write docs/results.md of all that is there.

    python scripts/take_in_sweep.py runs/sweep/camvid_frozen

Counts the validation images of trainings that were not counted yet, writes docs/results/NAME.json (and NAME.npz, the
counts), NAME being the folder's, and the page with its pictures. It can be run again at any time, in mid-sweep too.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_app.tools import sweep_report
from lightning_app.util.errors import InputError

PAGE = Path("docs/results.md")


def main(args: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Take a sweep's results into docs/results.", allow_abbrev=False)
    parser.add_argument("sweep", type=Path, metavar="FOLDER", help="as given to contextzoo sweep --out")
    sweep: Path = parser.parse_args(args).sweep
    results = PAGE.with_suffix("")
    try:
        sweep_report.write([sweep], None, per_image=sweep_report.is_of_class_maps(sweep))
        for file in (sweep / "results.json", sweep / "results.npz"):
            if file.is_file():
                shutil.copyfile(file, results / f"{sweep.name}{file.suffix}")
        sweep_report.write(sorted(results.glob("*.json")), PAGE)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
