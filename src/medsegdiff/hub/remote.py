"""Models of the Hugging Face hub: fetched when they are asked for, kept in its cache, where they are found offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medsegdiff.errors import CheckpointError, ConfigError

WANTED = ("*.json", "*.safetensors", "*.onnx", "*.npz", "README.md", "LICENSE*", "split.csv", "seen.csv")
"""Files that a model is made of; what else lies in a repository is left there. None of them is code."""


def fetch(name: str, revision: str | None = None) -> Path:
    """Fetch a repository, or find it in the cache; ``HF_HUB_OFFLINE``, ``HF_HOME`` and tokens are heeded."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise ConfigError(
            f"{name}: there is no such folder, and models of the Hugging Face hub need the package huggingface_hub "
            f"({error}). Install it: pip install 'medsegdiff[hub]'"
        ) from error
    asked: Any = {"allow_patterns": list(WANTED), "library_name": "medsegdiff"}
    try:
        return Path(snapshot_download(name, revision=revision, **asked))
    except (HFValidationError, OSError, ValueError) as error:  # of the hub, of the network, of the disk
        raise CheckpointError(f"{_named(name, revision)}: {_reason(error)}") from error


def _named(name: str, revision: str | None) -> str:
    return name if revision is None else f"{name} (revision {revision})"


def _reason(error: Exception) -> str:
    """Say in words why the hub gives nothing."""
    from huggingface_hub import errors

    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, errors.GatedRepoError):
        return "the hub gives it only to those who have asked for it on its page and logged in ('hf auth login')."
    if isinstance(error, errors.RevisionNotFoundError):
        return "the hub has no such revision of it. Look at the branches and tags on its page."
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such folder, and no model of that name on the hub, or it is private ('hf auth login')."
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            "there is no such folder, the model is not in the hub's cache, and the hub can't be reached, or "
            "HF_HUB_OFFLINE is set. Fetch it once on a machine with a network: hf download "
            "ORGANISATION/NAME; the cache (HF_HOME) can be copied."
        )
    return f"can't be had from the hub ({first})."
