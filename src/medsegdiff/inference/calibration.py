"""What validation cases have taught of a run's ensembles: its mixture of probabilities, its intervals of sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from medsegdiff.config.base import Component
from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.errors import CheckpointError
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.io.atomic import write_json
from medsegdiff.metrics.intervals import Stretch

FILE = "calibration.json"
"""In the folder of a run."""


class Calibration(Component):
    """Fitted once training is over; without validation cases enough, what is said is not calibrated."""

    cases: int = 0
    """Validation cases that it rests on; 0: none."""
    mixture: Mixture = Mixture()
    """Of anchor and members, for ``probability/``."""
    stretch: Mapping[str, Stretch] = {}
    """Of the intervals of sizes, by structure; nothing where only slices of volumes were segmented."""
    dependence: float = Field(default=0.0, ge=0, le=1)
    """ρ of `medsegdiff.fusion.protocol.Raters`: how far the raters of a case draw alike."""
    sampling: SamplingConfig | None = None
    """How those cases were segmented."""
    log_scores: Mapping[str, float] = {}
    """Near structures of those cases, in nats, lower is better: ``anchor``, ``members``, ``mixture``."""

    @classmethod
    def of_run(cls, folder: Path) -> Calibration:
        """Read what a run has; nothing where it has none."""
        file = folder / FILE
        if not file.is_file():
            return cls()
        try:
            return cls.model_validate(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, ValidationError) as error:
            raise CheckpointError(
                f"{file}: can't be read ({error}). Remove it to segment uncalibrated; train with --resume then "
                "writes it anew."
            ) from error

    def fits(self, sampling: SamplingConfig, *, volumes: bool) -> bool:
        """Tell whether images that are segmented so are like the cases that it rests on, pictures or volumes."""
        return self.sampling is not None and shaping(self.sampling, volumes=volumes) == shaping(
            sampling, volumes=volumes
        )

    def as_for(self, sampling: SamplingConfig, *, volumes: bool) -> Calibration:
        """Take what holds for images that are segmented so: intervals of sizes are those of one kind of ensemble.

        The mixture is of what members expect on average, however many there are: it stays, as the best that is known.
        """
        fits = self.fits(sampling, volumes=volumes)
        return self if fits else self.model_copy(update={"cases": 0, "stretch": {}})

    def save(self, folder: Path) -> None:
        """Write it into a run."""
        write_json(folder / FILE, self.model_dump(mode="json"))


def dependence_of(calibrations: Sequence[Calibration]) -> float:
    """Average how far raters draw alike over the runs that know it: one number, of the raters and not of a network."""
    fitted = [of for of in calibrations if of.sampling is not None] or calibrations
    return sum(of.dependence for of in fitted) / len(fitted)


def shaping(sampling: SamplingConfig, *, volumes: bool) -> dict[str, Any]:
    """List what shapes an ensemble: all but the fusion of its members, and how many are drawn at once.

    Slices that share their noise err together, so that members differ more in the volume that they draw; of a picture
    there is one.
    """
    return sampling.model_dump(exclude={"fusion", "raters", "batch_size", *(() if volumes else ("shared_noise",))})
