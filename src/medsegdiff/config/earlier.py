"""Configurations of earlier versions: the one place that knows their keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED = {
    "sampling.num_samples": "sampling.members",
    "sampling.num_steps": "sampling.steps",
    "train.val_samples": "train.val_members",
    "model.checkpointing": "train.gradient_checkpointing",
}
"""Key of an earlier version → the key of today."""
TOLD = ("channels", "task", "classes", "modalities", "window", "plane", "layout")
"""What the section ``data`` of a run of format 1 holds of the data, whether it was asked or told."""


def key_of_today(key: str) -> str:
    """Translate ``section.key``."""
    return RENAMED.get(key, key)


def with_keys_of_today(values: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the keys of a whole configuration, as YAML or JSON gives it."""
    found: dict[str, Any] = {}
    for section, part in values.items():
        if not isinstance(part, Mapping):
            found.setdefault(section, part)
            continue
        for key, value in part.items():
            inner, _, name = key_of_today(f"{section}.{key}").partition(".")
            kept = found.setdefault(inner, {})
            kept[name] = kept[name] or value if isinstance(kept.get(name), bool) else value  # either switch was enough
        found.setdefault(section, {})
    return found


def split_told(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the configuration of a run of format 1 apart: what was asked, and what its data told (`DataSpec`)."""
    data = dict(values.get("data") or {})
    channels = data.get("channels") or 3
    spec = {
        "labels": {
            "task": data.get("task") or "binary",
            "classes": data.get("classes") or ["foreground"],
            "order": data.pop("label_values", ()),
        },
        "channels": channels,
        "modalities": data.get("modalities") or ["natural" if not data.get("window") else "ct"] * channels,
        "window": data.get("window"),
        "plane": "" if data.get("plane", "auto") == "auto" else data["plane"],
        "channel_files": data.pop("channel_files", 1),
        "layout": "" if data.get("layout", "auto") == "auto" else data["layout"],
    }
    asked = {key: value for key, value in data.items() if key not in TOLD}
    return {**values, "data": asked}, spec
