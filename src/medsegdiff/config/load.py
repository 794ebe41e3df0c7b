"""Named configurations, each a YAML file beside this one; reading them and changing single values."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from medsegdiff.config.base import Component
from medsegdiff.config.networks import NETWORKS, NetworkConfig, settings_of
from medsegdiff.config.run import Config
from medsegdiff.errors import ConfigError, nearest

YAML = (".yaml", ".yml")


def _presets() -> Traversable:
    return resources.files("medsegdiff.config").joinpath("presets")


def preset_names() -> list[str]:
    """List the presets that ship with the package."""
    return sorted(file.name.removesuffix(".yaml") for file in _presets().iterdir() if file.name.endswith(".yaml"))


def load_preset(name: str, overrides: Iterable[str] = ()) -> Config:
    """Read a preset, or a YAML file of the same form, and change some of its values.

    Args:
        name: Name of a preset, or a path that ends in ``.yaml``. A file may build on one: ``base: v2``, or on another
            file, ``base: ours.yaml``, which lies beside it.
        overrides: ``section.key=value``, the value in YAML.

    Returns:
        The configuration.

    Raises:
        ConfigError: If the preset, a key or a value is not valid.

    Example:
        >>> load_preset("v2-tiny", ["train.max_steps=2000"]).train.max_steps
        2000
    """
    return make_config(_read(name), overrides)


def preset_facts() -> list[dict[str, str]]:
    """Tell what each preset is for, and what of the paper it reproduces."""
    presets = [(name, load_preset(name)) for name in preset_names()]
    return [{"name": name, "for": c.description, "reproduces": c.reproduces} for name, c in presets]


def _read(name: str, *, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read the values of a preset or a file, laid over those of its base; ``above`` are those that build on it."""
    known = preset_names()
    if name in above:
        raise ConfigError(f"{name}: builds on itself ({' on '.join((*above, name))}). Name a preset as the last base.")
    if name.endswith(YAML):
        if not Path(name).is_file():
            raise ConfigError(f"There is no configuration file {name}.")
        text = _text(Path(name))
    elif name in known:
        text = (
            resources.files("medsegdiff.config")
            .joinpath("presets")
            .joinpath(f"{name}.yaml")
            .read_text(encoding="utf-8")
        )
    else:
        raise ConfigError(f"No preset '{name}'. Known: {', '.join(known)}.{nearest(name, known)}")
    values = _yaml(text, name) or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: expected sections of keys, such as 'train: {{max_steps: 2000}}'; found {values!r}.")
    values = with_keys_of_today(values)
    base = values.pop("base", None)
    return values if base is None else _laid_over(_read(_beside(name, str(base)), above=(*above, name)), values)


def _beside(name: str, base: str) -> str:
    """Find the file that another one builds on: from its own folder on, wherever it is read."""
    return os.path.normpath(Path(name).parent / base) if base.endswith(YAML) else base


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: can't be read as UTF-8 text ({error}). Save it as UTF-8.") from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands there twice, of which YAML would keep the last one without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Look at the keys as they are written, before others are merged in."""
        node, seen = super().compose_mapping_node(anchor), set[str]()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                told = f"the key '{key.value}' stands there twice; keep one"
                raise yaml.composer.ComposerError(None, None, told, key.start_mark)
            seen.add(key.value)
        return node


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: is not valid YAML: {' '.join(str(error).split())}.") from None


def _laid_over(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Lay values over those of a base. Another network starts from its own defaults, unless it takes the same ones."""
    if _settings(base) is not _settings(values, otherwise=base):
        base = {**base, "model": {}}
    inner = {key: part for key, part in base.items() if isinstance(part, Mapping)}
    both = {key: {**inner.get(key, {}), **part} for key, part in values.items() if isinstance(part, Mapping)}
    return {**base, **values, **both}


def _settings(values: Mapping[str, Any], otherwise: Mapping[str, Any] | None = None) -> type[Component]:
    """Find the settings of the network that values name, or that others name."""
    model = values.get("model")
    if isinstance(model, Mapping) and "name" in model:
        return settings_of(model["name"])
    return settings_of(None) if otherwise is None else _settings(otherwise)


def make_config(values: Mapping[str, Any], overrides: Iterable[str] = ()) -> Config:
    """Validate a configuration."""
    merged = with_keys_of_today(values)
    for override in overrides:
        merged = _laid_over(merged, _parsed(override, _settings(merged)))
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        settings = _settings(merged)
        raise ConfigError("\n".join(_explain(dict(problem), settings) for problem in error.errors())) from None


def _parsed(override: str, settings: type[Component]) -> dict[str, dict[str, Any]]:
    path, equals, text = override.partition("=")
    path = key_of_today(path.strip())
    section, dot, key = path.partition(".")
    if not (equals and dot and key):
        raise ConfigError(f"'{override}' is not of the form section.key=value, as in train.max_steps=2000.")
    if path not in known_keys():
        raise ConfigError(_unknown(path, settings))
    return {section: {key: _yaml(text, override)}}


def _explain(problem: dict[str, Any], settings: type[Component]) -> str:
    """Say in a sentence what pydantic found: the key, what was given, what is allowed."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return _unknown(key, settings)
    given = f" (given: {problem.get('input')!r})" if key else ""
    return f"{key or 'configuration'}: {problem['msg']}{given}."


def _unknown(key: str, settings: type[Component]) -> str:
    """Name the nearest key, and those of its section."""
    known = known_keys(settings)
    section = key.split(".")[0]
    alike = [k for k in known if k.startswith(f"{section}.")] or sorted({k.split(".")[0] for k in known})
    whose = f" for the model '{settings.model_fields['name'].default}'" if section == "model" else ""
    return f"Unknown key '{key}'{whose}.{nearest(key, known)} Known: {', '.join(alike)}."


def sections() -> dict[str, type[Component]]:
    """List the sections of a configuration, and what they are made of."""
    kinds = {name: field.annotation for name, field in Config.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Component)}


def known_keys(settings: type[Component] | None = None) -> list[str]:
    """List every key that can be set."""
    networks = [entry.factory for entry in NETWORKS] if settings is None else [settings]
    keys = []
    for section, kind in sections().items():
        parts = networks if kind is NetworkConfig else [kind]
        keys += [f"{section}.{key}" for part in parts for key in part.model_fields]
    return list(dict.fromkeys(keys))


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
        if part is None and section in sections():  # of comments alone
            continue
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
