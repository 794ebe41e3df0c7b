"""Which folder a model means that a user names."""

from __future__ import annotations

import logging
import re
from functools import cache
from pathlib import Path

from medsegdiff.errors import CheckpointError, ConfigError, nearest, some
from medsegdiff.hub.installed import Installed, installed_model, installed_models
from medsegdiff.hub.remote import fetch

log = logging.getLogger(__name__)

PREFIX = "hf:"
"""Says that a name is one of the hub, whatever lies in the working folder."""
REPOSITORY = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)
MODELS = (
    "the package medsegdiff-models brings some (pip install ./models in a checkout), 'medsegdiff models list' tells "
    "which there are"
)


def place_of(model: str | Path, *, revision: str | None = None) -> Path:
    """Find the folder of a model: a folder of that name, else an installed model, else one of the hub.

    Nothing is asked of the network unless the name has the form ``ORGANISATION/NAME``, no folder of it is there, and
    none of the organisation's name either (a mistyped path should not leave this machine); ``hf:ORGANISATION/NAME``
    asks in any case.

    Args:
        model: A folder, the name of an installed model, or a repository of the Hugging Face hub, perhaps with
            ``@REVISION``.
        revision: Branch, tag or commit of the repository; ``None``: what the name says, else its main branch.

    Returns:
        The folder, which may lie in the hub's cache.

    Raises:
        ConfigError: If a revision is asked of what has none.
        CheckpointError: If no model is found.
    """
    name, folder = (model if isinstance(model, str) else model.as_posix()), Path(model)
    if folder.is_dir():
        _refuse(revision, name, "a folder")
        if len(folder.parts) == 1 and not folder.is_absolute() and (hidden := installed_model(name)):
            _say_hidden(hidden)
        return folder
    asked = REPOSITORY.fullmatch(name.removeprefix(PREFIX))
    if name.startswith(PREFIX) and not asked:
        raise ConfigError(f"{name}: after '{PREFIX}' comes ORGANISATION/NAME, perhaps with @REVISION.")
    if asked and (name.startswith(PREFIX) or not Path(asked["name"]).parent.is_dir()):
        return fetch(asked["name"], revision or asked["revision"])
    if len(folder.parts) > 1:
        about = f" (To ask the hub for it: {PREFIX}{name})" if asked else ""
        raise CheckpointError(
            f"{name}: there is no such folder. Give the folder that 'medsegdiff train --out' wrote.{about}"
        )
    found = installed_model(name)
    if found is None:
        raise CheckpointError(_unknown(name))
    _refuse(revision, name, f"a model of {found.package}")
    return found.folder


def own_folder(model: str | Path) -> Path:
    """Find the folder of a model that is to be written to, which must be one of the user's own."""
    folder = place_of(model)
    if not Path(model).is_dir():
        raise ConfigError(
            f"{model} is a model that came along ({folder}), which is not written to. Make a folder of your own of "
            f"it first, with its weights and licence as they are: medsegdiff pack {model} my-model"
        )
    return folder


def _unknown(name: str) -> str:
    """Say that there is no model of a name."""
    known = [model.name for model in installed_models()]
    there = f"installed are {some(known)}.{nearest(name, known)}" if known else f"none is installed ({MODELS})."
    return (
        f"{name}: there is no such folder, and no installed model of that name; {there} Give the folder that "
        "'medsegdiff train --out' wrote, or ORGANISATION/NAME on the Hugging Face hub."
    )


def _refuse(revision: str | None, name: str, what: str) -> None:
    if revision is not None:
        raise ConfigError(f"{name} is {what}, which has no revisions; {revision} was asked for. Leave it out.")


@cache  # once in a program is enough
def _say_hidden(model: Installed) -> None:
    log.warning(
        "The folder %s is taken; the installed model of that name (%s) is not: %s.",
        model.name,
        model.package,
        model.folder,
    )
