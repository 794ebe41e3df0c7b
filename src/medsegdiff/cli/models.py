"""``medsegdiff models``: models that can be used at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from medsegdiff.cli import command, options
from medsegdiff.cli.console import info, out, result

if TYPE_CHECKING:
    from medsegdiff.hub.card import Card

app = typer.Typer(help="Models that come along with installed packages, and what is told of a model.")


def list_(as_json: options.AsJson = False) -> None:
    """List the models of installed packages.

    Example: `medsegdiff models list`
    """
    from medsegdiff.hub.card import Card
    from medsegdiff.hub.installed import installed_models
    from medsegdiff.hub.place import MODELS
    from medsegdiff.io.atomic import to_json

    found = installed_models()
    rows = [{"name": one.name, "package": one.package, "about": Card.read(one.folder).summary} for one in found]
    if as_json:
        result(to_json(rows))
        return
    if not rows:
        info(f"No model is installed ({MODELS.split(',')[0]}). Runs of your own and models of the hub need none.")
        return
    table = Table("name", "about", "from")
    for row in rows:
        table.add_row(row["name"], row["about"], row["package"])
    out.print(table)


def show(
    name: Annotated[str, typer.Argument(help="Name of an installed model, a folder, or ORGANISATION/NAME.")],
    as_json: options.AsJson = False,
) -> None:
    """Tell what a model is: its card, its licence, its files and whether they are as they were packed.

    Example: `medsegdiff models show heart-lv`
    """
    from medsegdiff.hub.card import Card
    from medsegdiff.hub.place import place_of
    from medsegdiff.io.atomic import to_json
    from medsegdiff.models.packed import check_packed, packed_facts

    folder = place_of(name)
    packed = packed_facts(folder)
    check_packed(folder)
    card = Card.read(folder)
    if as_json:
        result(to_json({"name": name, "folder": str(folder), "packed": packed, "card": card.head, "text": card.text}))
        return
    _print(folder, packed, card)


def _print(folder: Path, packed: dict[str, Any], card: Card) -> None:
    from rich.markdown import Markdown

    out.print(Markdown(card.text) if card.text else "It has no card.")
    out.print("")
    out.print(f"Folder: {folder}")
    for file, digest in packed.get("files", {}).items():
        out.print(f"{file}: SHA-256 {digest}")
    if not packed:
        out.print("It was not packed: no hash of its files is known.")


command.add(app, "list", list_, long=False)
command.add(app, "show", show, long=False)
