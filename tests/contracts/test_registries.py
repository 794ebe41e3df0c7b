"""Every registered sampler, fusion, metric and data set keeps what its kind promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import DATASETS, DataSource, Layout
from medsegdiff.data.open import open_source
from medsegdiff.diffusion.samplers import SAMPLERS, TableBuilder, sample
from medsegdiff.diffusion.schedule import make_schedule
from medsegdiff.diffusion.spacing import make_table
from medsegdiff.errors import DataError
from medsegdiff.fusion.fusers import FUSERS, Fuser
from medsegdiff.metrics.base import METRICS, Metric


@pytest.mark.parametrize("entry", list(SAMPLERS), ids=lambda e: e.name)
def test_sampler(entry: object) -> None:
    assert isinstance(entry.factory, TableBuilder)
    assert entry.facts.order in (1, 2)
    assert entry.facts.source
    schedule = make_schedule("cosine")
    for steps in (1, 2, 7):
        table = make_table(entry.name, schedule, num_steps=steps)
        assert (table[-1].x, table[-1].x_0, table[-1].noise) == pytest.approx((0, 1, 0))  # ends on a clean mask
        assert any(row.noise for row in table) == (entry.facts.stochastic and steps > 1)
    x = torch.randn(2, 1, 4, 4)
    fixed = torch.sign(torch.randn(2, 1, 4, 4))
    got = sample(
        lambda x_t, t: fixed, x, make_table(entry.name, schedule, num_steps=5), noise=lambda: torch.randn(x.shape)
    )
    assert torch.allclose(got, fixed, atol=1e-6)


@pytest.mark.parametrize("entry", list(FUSERS), ids=lambda e: e.name)
@pytest.mark.parametrize("exclusive", [False, True])
def test_fuser(entry: object, exclusive: bool) -> None:
    assert isinstance(entry.factory, Fuser)
    samples = torch.rand(5, 2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    probability = entry.factory(samples, exclusive=exclusive).probability
    assert probability.shape == (2, 3, 6, 7)
    assert probability.min() >= 0
    assert probability.max() <= 1
    agreed = torch.zeros(4, 1, 3, 6, 7)
    agreed[:, :, 1] = 1
    fused = entry.factory(agreed, exclusive=exclusive)
    assert torch.equal(fused.probability.round(), agreed[0])
    assert fused.mask is None or torch.equal(fused.mask.float(), agreed[0])
    order = torch.randperm(5)
    assert torch.allclose(entry.factory(samples[order], exclusive=exclusive).probability, probability, atol=1e-5)


@pytest.mark.parametrize("entry", list(METRICS), ids=lambda e: e.name)
def test_metric(entry: object) -> None:
    assert isinstance(entry.factory, Metric)
    assert entry.facts["better"] in ("higher", "lower")
    a, b = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    a[2:5, 2:6], b[3:7, 2:8] = True, True
    same, other = (entry.factory(a, m, spacing=(1.0, 1.0)) for m in (a, b))
    assert same > other if entry.facts["better"] == "higher" else same < other


OPENED = {"folder", *(entry.name for entry in DATASETS if entry.facts["kind"] == "generated")}


@pytest.mark.parametrize("name", sorted(OPENED))
def test_data_set(name: str, folder: Path) -> None:
    source = open_source(folder if name == "folder" else name, DataConfig(image_size=32))
    assert isinstance(source, DataSource)
    for part in ("train", "val", "test"):
        case = source.load(source.info.names(part)[0])
        assert case.image.shape[0] <= source.info.channels
        assert case.mask.shape[1] == len(source.info.labels.classes)
        assert case.mask.shape[2:] == case.image.shape[1:] == case.geometry.shape


@pytest.mark.parametrize("entry", [e for e in DATASETS if e.facts["kind"] != "generated"], ids=lambda e: e.name)
def test_layout(entry: object, folder: Path, tmp_path: Path) -> None:
    assert isinstance(entry.factory, Layout)
    assert entry.facts["layout"]
    (tmp_path / "empty").mkdir()
    strange = [tmp_path / "nowhere", tmp_path / "empty", folder / "images", next((folder / "images").iterdir())]
    assert not any(entry.factory.detect(path) for path in strange)
    assert entry.factory.detect(folder) == (entry.name == "folder")
    for path in strange[:2]:
        with pytest.raises(DataError, match="expected .*found|there is no such folder"):
            entry.factory(path, DataConfig())


@pytest.mark.parametrize("entry", [e for e in DATASETS if e.facts["kind"] == "benchmark"], ids=lambda e: e.name)
def test_benchmark_tells_of_itself(entry: object) -> None:
    assert {"task", "classes", "licence", "home", "paper", "layout"} <= set(entry.facts)
    assert "://" in entry.facts["home"] or entry.facts["home"].startswith("those of")
    assert entry.facts.get("variant_of", entry.name) in DATASETS
