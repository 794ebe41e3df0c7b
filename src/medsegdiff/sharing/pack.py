"""Packing a run: what others need to segment with it, and nothing that tells of the machine it was trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from medsegdiff.errors import CheckpointError, ConfigError, some
from medsegdiff.evaluation.results import Results, read_results
from medsegdiff.hub.card import FILE as CARD
from medsegdiff.inference import calibration, quality
from medsegdiff.inference.folder import SPLIT
from medsegdiff.inference.quality import QualityModel
from medsegdiff.io.atomic import content_replaced, names_in, write_json, write_text
from medsegdiff.io.hashes import sha256_of
from medsegdiff.models.checkpoint import BEST, CONFIG, FILES, Weights, load_config, load_model, save_weights
from medsegdiff.models.exported import is_exported
from medsegdiff.models.packed import check_packed, name_of, packed_facts, write_packed
from medsegdiff.models.quantization import dequantized, is_quantized, quantized
from medsegdiff.sharing.card import About, Shown, card_of
from medsegdiff.training.origin import ancestors, beginning_with, given_away, license_of, told_of
from medsegdiff.training.run import SEEN, Run

Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""Of the weights in the file; ``int8``: large matrices have 8 bits and a scale for each channel, the rest fp16."""
DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.float16,
}
LICENSE = "LICENSE"


@dataclass(frozen=True)
class Packed:
    """What was written."""

    folder: Path
    bytes: dict[str, int]
    """Of each file."""


def pack(
    run: Path,
    out: Path,
    about: About,
    *,
    precision: Precision | None = None,
    weights: Weights = "best",
    scores: Path | None = None,
    license_file: Path | None = None,
    with_split: bool = False,
    overwrite: bool = False,
    noted: Callable[[str], None] = lambda _: None,
) -> Packed:
    """Write a folder that others can segment with: weights, configuration, calibration, card, licence.

    What was learned by calibration comes along. Of weights that are rounded it is taken over, and the card says so:
    to have it of the very weights, calibrate what was packed, and pack that once more.

    Args:
        run: Folder of a run, or of a packed model.
        out: The folder to write.
        about: What only its maker can tell: name, licences, what it is for.
        precision: Of the weights in the file; ``None``: fp32, or as they were packed.
        weights: Which weights of the run.
        scores: What ``medsegdiff evaluate --out`` wrote, for the card.
        license_file: Text of the licence; ``None``: that of Apache-2.0, or the one that was packed, if it is that.
        with_split: Whether the names of the cases come along, which may tell of patients.
        overwrite: Whether what was packed there before may go.
        noted: Told what a person should know.

    Returns:
        What was written.

    Raises:
        ConfigError: If the folder is not free, the licence has no text, or the run is an exported one.
        CheckpointError: If weights can't be written in this precision.
    """
    text, numbers = _license(about, license_file, run), None if scores is None else read_results(scores)
    check_packed(run)
    if is_exported(run):
        raise ConfigError(f"{run} is an exported run, which has graphs for weights. Pack the run it was made of.")
    _check_room(out, overwrite=overwrite)
    load_model(run, weights=weights)  # what can't be opened should not be given away
    given = precision or packed_facts(run).get("precision", "fp32")
    with content_replaced(out, lambda: _packed_files(out)) as new:  # it may be packed into its own folder
        _write(run, new, about, text, numbers, precision=given, weights=weights, with_split=with_split, noted=noted)
    return Packed(out, {path.name: path.stat().st_size for path in sorted(out.iterdir())})


def _write(
    run: Path,
    out: Path,
    about: About,
    text: str,
    numbers: Results | None,
    *,
    precision: Precision,
    weights: Weights,
    with_split: bool,
    noted: Callable[[str], None],
) -> None:
    """Write all files, the hashes last."""
    facts, files = write_model(run, out, precision=precision, weights=weights)
    facts["record"] |= _of_another_licence(run, about)
    if facts.get("rounded_from") and quality.FILE in files:
        noted("What was calibrated is of the weights before they were rounded; the card says so.")
    for line in _other_licences(facts["record"], about):
        noted(line)
    for file in _splits_of(run) if with_split else ():
        shutil.copyfile(file, out / file.name)
        files.append(file.name)
    write_text(out / LICENSE, text)
    write_text(out / CARD, card_of(about, _shown(out, facts, numbers)).written())
    write_packed(out, {"name": about.name, **facts}, files)


def write_model(run: Path, out: Path, *, precision: Precision, weights: Weights) -> tuple[dict[str, Any], list[str]]:
    """Write weights, configuration and what was calibrated; give what is known of them, and the files to hash."""
    facts = {**_write_weights(run, out, precision, weights), "record": given_away(told_of(run))}
    _write_config(run, out)
    return facts, [BEST, *_snapshots(run, out, precision), *_learned(run, out, weights)]


def _of_another_licence(run: Path, about: About) -> dict[str, Any]:
    """Name a packed model that is packed anew under another licence: its weights begin with those that it had."""
    if license_of(run).lower() in ("", about.license.lower()):
        return {}
    return {"started_from": given_away({**beginning_with(run), "trained_known": Run(run).tells_trained})}


def _other_licences(record: Mapping[str, Any], about: About) -> list[str]:
    """Say which models with other licences a run began with."""
    found = dict.fromkeys((of["name"], of["license"]) for of in ancestors(record) if of.get("license"))
    return [
        f"It began with the weights of {name}, whose licence is {license_}; this one is {about.license.lower()}. Find "
        "out whether that may be; --license takes another."
        for name, license_ in found
        if license_.lower() != about.license.lower()
    ]


def _license(about: About, file: Path | None, run: Path) -> str:
    """Find the text of the licence."""
    if file is not None:
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigError(f"--license-file {file}: can't be read ({error}).") from error
    if about.license.lower() == license_of(run).lower() and (run / LICENSE).is_file():
        return (run / LICENSE).read_text(encoding="utf-8")
    if about.license.lower() != "apache-2.0":
        raise ConfigError(
            f"The text of the licence {about.license} is not at hand, only that of apache-2.0. Give it: "
            "--license-file FILE"
        )
    kept = (path for path in distribution("medsegdiff").files or () if path.name == LICENSE)
    return next(path.read_text(encoding="utf-8") for path in kept)


def _check_room(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder with anything else than a packed model, and that too unless it may go."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; give a folder.")
    there = names_in(out)
    if there and not _is_packed(out):
        raise ConfigError(f"{out} holds {some(there)}, which 'medsegdiff pack' did not write. Choose another folder.")
    if there and not overwrite:
        raise ConfigError(f"{out} holds a packed model already. Add --overwrite to replace it, or choose another.")


def _is_packed(folder: Path) -> bool:
    try:
        return "packed" in json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _packed_files(out: Path) -> list[Path]:
    """List what was packed there before."""
    named = (out / name for name in (CONFIG, calibration.FILE, CARD, LICENSE, SPLIT, SEEN))
    return [*out.glob("*.safetensors"), *out.glob("quality*.json"), *named]


def _write_weights(run: Path, out: Path, precision: Precision, weights: Weights) -> dict[str, Any]:
    """Write the weights, as they are or rounded."""
    source, target = run / FILES[weights], out / BEST
    state = load_file(source)
    stored = {value.dtype for value in state.values() if value.is_floating_point()}
    if is_quantized(state) if precision == "int8" else stored <= {DTYPES[precision]} and not is_quantized(state):
        shutil.copyfile(source, target)
        return {"precision": precision}
    with safe_open(source, "pt") as file:
        header = {key: value for key, value in (file.metadata() or {}).items() if key != "format"}
    save_weights(target, _rounded(state, precision), header)
    return {"precision": precision, "rounded_from": sha256_of(source)}


def _rounded(state: Mapping[str, Tensor], precision: Precision) -> dict[str, Tensor]:
    """Round weights, and refuse those that can't be."""
    state, dtype = dequantized(state), DTYPES[precision]
    rounded = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    if large := [name for name, value in rounded.items() if not torch.isfinite(value).all()]:
        raise CheckpointError(f"{large[0]} has values that {dtype} can't hold. Take another precision: bf16 or fp32.")
    return quantized(state, dtype) if precision == "int8" else rounded


def _snapshots(run: Path, out: Path, precision: Precision) -> list[str]:
    """Write the further weights of a run."""
    for source in sorted(run.glob("snapshot-*.safetensors")):
        save_weights(out / source.name, _rounded(load_file(source), precision))
    return sorted(path.name for path in out.glob("snapshot-*.safetensors"))


def _write_config(run: Path, out: Path) -> None:
    """Write the configuration without paths of the machine: files keep their last names, a packed teacher its name."""
    told = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    again = told.pop("packed", None)
    train, data, model = (told["config"].get(section, {}) for section in ("train", "data", "model"))
    if isinstance(train.get("teacher"), str) and not again:  # there it is a name already
        train["teacher"] = name_of(Path(train["teacher"]))
    named = ((train, "unlabelled"), (data, "cache_dir"), (model, "weights"))
    for section, key in (*named, *((plugin, "file") for plugin in told.get("plugins", ()))):
        if isinstance(section.get(key), str):
            section[key] = Path(section[key]).name
        elif isinstance(section.get(key), list):
            section[key] = [Path(file).name for file in section[key]]
    write_json(out / CONFIG, told)


def _learned(run: Path, out: Path, weights: Weights) -> list[str]:
    """Take along what calibration has taught of these weights."""
    if weights != "best":
        return []
    files = []
    if (run / calibration.FILE).is_file():
        shutil.copyfile(run / calibration.FILE, out / calibration.FILE)
        files.append(calibration.FILE)
    known = QualityModel.read(run / quality.FILE)
    if known is not None and known.weights in ((), (sha256_of(run / BEST),)):
        write_json(
            out / quality.FILE, known.model_copy(update={"weights": (sha256_of(out / BEST),)}).model_dump(mode="json")
        )
        files.append(quality.FILE)
    return files


def _splits_of(run: Path) -> list[Path]:
    """Find the split, and the names of what the runs were trained on that this one began with."""
    if not (run / SPLIT).is_file():
        raise ConfigError(f"{run} has no {SPLIT} to take along. Leave --with-split out.")
    return [file for file in (run / SPLIT, run / SEEN) if file.is_file()]


def _shown(out: Path, facts: dict[str, Any], numbers: Results | None) -> Shown:
    """Collect what the card shows."""
    known, size = QualityModel.read(out / quality.FILE), (out / BEST).stat().st_size
    return Shown(load_config(out), facts["record"], facts, known, numbers, size)
