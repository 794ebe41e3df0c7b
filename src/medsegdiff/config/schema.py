"""The configuration as a JSON schema, for editors, and what differs between two of them."""

from __future__ import annotations

from typing import Any

import yaml

from medsegdiff.config.networks import NETWORKS
from medsegdiff.config.run import Config


def schema() -> dict[str, Any]:
    """Describe what a preset file may hold: every section and key, with its type, range and meaning."""
    whole = Config.model_json_schema()
    known = whole.setdefault("$defs", {})
    networks = []
    for entry in NETWORKS:
        settings = entry.factory.model_json_schema(ref_template="#/$defs/{model}")
        known.update(settings.pop("$defs", {}))
        settings["properties"]["name"] = {**settings["properties"]["name"], "const": entry.name}
        name = entry.factory.__name__
        known[name] = settings
        networks.append({"$ref": f"#/$defs/{name}"})
    properties = whole["properties"]
    properties["model"] = {"anyOf": networks, "description": "The network; which settings there are, its name decides."}
    properties["base"] = {"type": "string", "description": "Preset or file that this one builds on."}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}


def differences(first: Config, second: Config) -> dict[str, tuple[Any, Any]]:
    """List the keys whose values differ, with both values; ``None`` for a key that one does not have."""
    one, other = (_flat(config.model_dump(mode="json")) for config in (first, second))
    keys = dict.fromkeys([*one, *other])
    return {key: (one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)}


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    told = {key: value for key, value in values.items() if key not in ("description", "reproduces")}
    return {f"{section}.{key}": value for section, part in told.items() for key, value in part.items()}


def as_yaml(config: Config) -> str:
    """Write a configuration as a preset file."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
