"""What is compared, and how: the question of an evaluation, which may be written down and asked again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import Track
from medsegdiff.evaluation.consensus import Consensus, check_consensus
from medsegdiff.evaluation.lesions import settled
from medsegdiff.evaluation.pairing import Kind, Pairing, pair
from medsegdiff.evaluation.stated import stated_of
from medsegdiff.metrics.lesions import LesionRule
from medsegdiff.metrics.surface import TOLERANCE


@dataclass(frozen=True)
class Asked:
    """The arguments of `medsegdiff.evaluation.evaluate`, which tells what they mean."""

    predictions: Path
    references: Path
    split: str | None = None
    present_only: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    kind: Kind = "auto"
    fusion: str = "staple"
    tolerance: float = TOLERANCE
    reference: Consensus = "majority"
    lesions: LesionRule | None = None

    def paired(self, track: Track) -> Pairing:
        """Find the files to compare."""
        check_consensus(self.reference)
        pairing = pair(
            self.predictions,
            self.references,
            split=self.split,
            present_only=self.present_only,
            data=self.data,
            kind=self.kind,
            fusion=self.fusion,
            track=track,
        )
        stated = stated_of(self.predictions, pairing.names, pairing.predictions.called)
        pairing = replace(pairing, consensus=self.reference, stated=stated)
        if self.lesions is None:
            return pairing
        return replace(pairing, lesions=settled(self.lesions, pairing, ndim=3 if pairing.volumes else 2))

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values, that can be asked again from another folder."""
        told = {name: value for name, value in vars(self).items() if name not in ("data", "lesions")}
        told |= {name: str(told[name].absolute()) for name in ("predictions", "references")}
        rule = None if self.lesions is None else asdict(self.lesions)
        return {**told, "data": self.data.model_dump(mode="json"), "lesions": rule}

    @classmethod
    def of(cls, told: dict[str, Any]) -> Asked:
        """Take plain values."""
        rule = told["lesions"]
        folders = {name: Path(told[name]) for name in ("predictions", "references")}
        data = DataConfig.model_validate(told["data"])
        return cls(**{**told, **folders, "data": data, "lesions": None if rule is None else LesionRule(**rule)})
