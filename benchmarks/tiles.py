"""Cut pictures and the masks of their raters into tiles, so that structures of a pixel's width keep it.

python benchmarks/tiles.py ../shared/data/chase_db1 runs/chase_tiles --side 128
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from medsegdiff.cli import guard


def main() -> None:
    """Cut CHASE_DB1 at 512 px."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="Folder with images_512/, masks_512/RATER/ and split.csv.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", type=int, default=128)
    given = parser.parse_args()
    cut_all(given.data, given.out, given.side)


def cut_all(data: Path, out: Path, side: int) -> None:
    """Write tiles as a data folder; ``patient`` is the person whose left and right eye were photographed.

    Args:
        data: Folder with ``images_512/``, ``masks_512/RATER/`` and ``split.csv``.
        out: The new folder.
        side: Of a tile in pixels; it divides that of the pictures.
    """
    rows = []
    for entry in csv.DictReader((data / "split.csv").open(encoding="utf-8")):
        name = entry["id"]
        image = next((data / "images_512").glob(f"{name}.*"))
        names = cut(image, out / "images", side)
        for rater in sorted((data / "masks_512").iterdir()):
            cut(rater / f"{name}.png", out / "masks" / rater.name, side)
        rows += [{"id": tile, "split": entry["split"], "patient": name.rstrip("LR")} for tile in names]
    with (out / "split.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "split", "patient"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def cut(picture: Path, folder: Path, side: int) -> list[str]:
    """Write the tiles of a picture; ``_r1c2`` is the second row's third.

    Args:
        picture: PNG or JPEG.
        folder: Gets the tiles.
        side: Of a tile.

    Returns:
        Their names.
    """
    pixels = np.asarray(Image.open(picture))
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for row, column in np.ndindex(pixels.shape[0] // side, pixels.shape[1] // side):
        tile = pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]
        names.append(f"{picture.stem}_r{row}c{column}")
        Image.fromarray(tile).save(folder / f"{names[-1]}.png")
    return names


if __name__ == "__main__":
    guard(main)
