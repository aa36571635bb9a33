"""Write the parameters of every head and block, which ``contextzoo heads`` and ``contextzoo blocks`` show.

    python scripts/count_parameters.py

A test says when it is to be run again.
"""

import json

from lightning_app.tools import listing


def main() -> None:
    place = listing.COLUMNS.index("parameters")
    counts = {kind: {row[0]: row[place] for row in listing.counted(kind)} for kind in ("blocks", "heads")}
    listing.COUNTS.write_text(json.dumps(counts, indent=1) + "\n")
    print(f"{listing.COUNTS}: {', '.join(f'{len(each)} {kind}' for kind, each in counts.items())}")


if __name__ == "__main__":
    main()
