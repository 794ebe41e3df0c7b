from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from medsegdiff.config.load import known_keys, load_preset, make_config
from medsegdiff.config.networks import NETWORKS
from medsegdiff.config.run import Config
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.errors import ConfigError


def test_overrides_change_one_value_and_nothing_else() -> None:
    base, changed = load_preset("v2-tiny"), load_preset("v2-tiny", ["train.max_steps=7", "data.resize=stretch"])
    assert (changed.train.max_steps, changed.data.resize) == (7, "stretch")
    assert changed.model == base.model


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.max_step=5", r"Unknown key 'train\.max_step'.*Did you mean 'train\.max_steps'"),
        ("trian.max_steps=5", r"Unknown key .trian.max_steps."),
        ("train.max_steps=soon", r"train\.max_steps: .*integer.*given: 'soon'"),
        ("train.max_steps=0", r"train\.max_steps: .*greater than or equal to 1"),
        ("data.resize=crop", r"data\.resize: .*'fit', 'stretch' or 'none'"),
        ("train.max_steps", "not of the form section.key=value"),
        ("max_steps=3", "not of the form section.key=value"),
        ("model.anchor_levels=[9]", "anchor_levels must lie in 0 … 2"),
        ("model.anchor_levels=[-1]", "anchor_levels must lie in 0 … 2"),
        ("model.anchor_levels=[0, 0]", "each once"),
        ("description.foo=1", r"Unknown key 'description\.foo'"),
        ("train.max_steps=[1", r"train\.max_steps=\[1: is not valid YAML"),
        ("model.condition_widths=[8, 16]", "as many levels as each other"),
        ("data.cache_gb=.inf", r"data\.cache_gb: .*finite number.*given: inf"),
        ("train.max_minutes=.inf", r"train\.max_minutes: .*finite number"),
        ("data.window=[.nan, 5]", r"data\.window.*finite number"),
        ("data.window=[400, 40]", r"data\.window: .*the lower end comes first; width 400 at level 40 is \[-160, 240\]"),
        ("data.window=[40, 40]", "the lower end comes first"),
        ("model.num_heads=2", r"Unknown key 'model\.num_heads' for the model 'medsegdiff-v2'"),
        ("diffusion={target: eps, zero_terminal_snr: true}", "not of the form"),
    ],
)
def test_what_is_not_valid_is_named(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_preset("v2-tiny", [override])


def test_noise_prediction_can_not_start_from_pure_noise() -> None:
    with pytest.raises(ConfigError, match="zero_terminal_snr needs target v or x0"):
        load_preset("v2-tiny", ["diffusion.target=eps", "diffusion.zero_terminal_snr=true"])


def test_an_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="No preset 'v2-tny'.*Did you mean 'v2-tiny'"):
        load_preset("v2-tny")
    with pytest.raises(ConfigError, match=r"no configuration file gone\.yaml"):
        load_preset("gone.yaml")


def test_a_file_of_ones_own_is_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: {max_steps: 12}\n", encoding="utf-8")
    assert load_preset(str(file), ["train.seed=3"]).train.max_steps == 12
    assert load_preset(str(file)).model == load_preset("v2-paper").model
    file.write_text("base: v2-tiny\ntrain: {max_steps: 12}\n", encoding="utf-8")
    built = load_preset(str(file))
    assert built.model == load_preset("v2-tiny").model
    assert (built.train.max_steps, built.train.batch_size) == (12, load_preset("v2-tiny").train.batch_size)
    file.write_text("- a list\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="expected sections of keys"):
        load_preset(str(file))


def test_a_file_builds_on_one_that_lies_beside_it_from_wherever_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ours.yaml").write_text("base: v2-tiny\ntrain: {max_steps: 12}\n", encoding="utf-8")
    file = tmp_path / "sub" / "mine.yaml"
    file.write_text("base: ours.yaml\ntrain:\n  # max_steps: 3\n", encoding="utf-8")
    for folder in (tmp_path, tmp_path / "sub"):
        monkeypatch.chdir(folder)
        assert load_preset(str(file)).train.max_steps == 12
        assert load_preset(os.path.relpath(file)).train.max_steps == 12
    (tmp_path / "sub" / "ours.yaml").write_text("base: ../sub/mine.yaml\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="builds on itself"):
        load_preset(str(file))


def test_keys_that_are_merged_in_or_are_no_words_are_none_that_stand_there_twice(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: &one {max_steps: 5}\nloss: &two {<<: *one, max_steps: 6}\ndata: {<<: *two}\n")
    with pytest.raises(ConfigError, match=r"Unknown key 'data\.max_steps'"):
        load_preset(str(file))
    with pytest.raises(ConfigError, match=r"data\.classes=\{\[a\]: 1\}: is not valid YAML"):
        load_preset("v2-tiny", ["data.classes={[a]: 1}"])
    file.write_text("modle:\n")
    with pytest.raises(ConfigError, match=r"Unknown key 'modle'.*Did you mean 'model"):
        load_preset(str(file))


def test_a_configuration_survives_being_written(config: ResolvedConfig) -> None:
    assert make_config(config.asked.model_dump(mode="json")) == config.asked
    assert ResolvedConfig.model_validate_json(config.model_dump_json()) == config
    other = load_preset("v2-tiny", ["model.name=medsegdiff-v1", "model.channels=16"])
    assert make_config(json.loads(other.model_dump_json())) == other


def test_each_network_has_its_own_settings() -> None:
    config = load_preset("v2-tiny", ["model.name=medsegdiff-v1", "model.channels=16"])
    assert "patch" not in config.model.model_dump()
    assert config.model == NETWORKS["medsegdiff-v1"].factory(channels=16)
    with pytest.raises(ConfigError, match=r"Unknown key 'model.patch' for the model 'medsegdiff-v1'.*model.multiples"):
        load_preset("v2-tiny", ["model.name=medsegdiff-v1", "model.patch=2"])
    with pytest.raises(ConfigError, match=r"Unknown key 'model.channels' for the model 'medsegdiff-v2'"):
        load_preset("v2-tiny", ["model.channels=16"])


def test_another_network_starts_from_its_own_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: v2-tiny\nmodel: {name: medsegdiff-v1}\n", encoding="utf-8")
    assert load_preset(str(file)).model == NETWORKS["medsegdiff-v1"].factory()
    assert load_preset(str(file)).train == load_preset("v2-tiny").train


def test_a_network_without_settings_of_its_own_takes_those_of_v2() -> None:
    """As a plugin may: a registered model whose settings are those of MedSegDiff-V2."""
    config = load_preset("v2-tiny", ["model.name=mine", "model.num_blocks=3"])
    assert config.model.name == "mine"
    assert config.model.condition_widths == load_preset("v2-tiny").model.condition_widths


def test_every_key_is_documented() -> None:
    for section, field in Config.model_fields.items():
        part = field.annotation
        if section in ("description", "reproduces"):
            continue
        for name, value in part.model_fields.items():
            assert value.description, f"{section}.{name}"
    for entry in NETWORKS:
        assert entry.factory.model_fields["name"].default == entry.name
        assert all(value.description for value in entry.factory.model_fields.values()), entry.name
    assert "train.max_steps" in known_keys()


def test_configurations_can_not_be_changed(config: Config) -> None:
    with pytest.raises(ValueError, match="frozen"):
        config.train.max_steps = 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"train:\n  max_steps: 5 # \xfcber Nacht\n", r"mine\.yaml: can't be read as UTF-8 text"),
        (b"base: v2-tiny\ndescription: {a: 1}\n", "description: Input should be a valid string"),
        (b"train: {max_steps: 7}\ntrain:\n  batch_size: 3\n", "the key 'train' stands there twice; keep one .*line 2"),
        (b"base: mine.yaml\n", r"mine\.yaml: builds on itself \(mine\.yaml on mine\.yaml\)"),
    ],
)
def test_files_that_are_no_preset_are_refused_by_name(
    content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        load_preset("mine.yaml")
