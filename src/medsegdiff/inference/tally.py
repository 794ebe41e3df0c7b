"""What became of images, in numbers: of so many that they are not kept themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from medsegdiff.inference.case_record import CaseRecord
from medsegdiff.inference.folder import MEASURES
from medsegdiff.metrics.plausibility import Suspicion, warning_of_kinds


@dataclass
class Tally:
    """Counts the cases of a folder."""

    count: int = 0
    """Images with a result."""
    failed: dict[str, str] = field(default_factory=dict)
    """Path → why."""
    missing: int = 0
    """Images that were asked for and have no record."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Why records were not counted → how many."""
    working: int = 0
    """Processes that still write there."""
    seconds: float = 0.0
    """For all images."""
    chosen_of: int = 0
    """Among how many candidates members were chosen; 0 where all that were drawn are members."""
    judged: int = 0
    """Images of which something is predicted."""
    marked: int = 0
    """Images that a human must see."""
    _members: Counter[int] = field(default_factory=Counter)
    _incomplete: int = 0
    _seen: Counter[Suspicion] = field(default_factory=Counter)

    def add(self, record: CaseRecord) -> None:
        """Count a case."""
        self.seconds += record.seconds
        if record.error is not None:
            self.failed[record.inputs[0].path if record.inputs else record.name] = record.error.text
        image = record.image
        if image is None:
            return
        self.count += 1
        self.chosen_of = max(self.chosen_of, image.chosen_of or 0)
        self.judged += bool(image.quality)
        self.marked += any(of.review for of in image.quality.values())
        self._members[image.members or 0] += 1
        self._incomplete += bool(image.incomplete)
        if record.seen is not None:
            self._seen[record.seen.suspicion] += 1

    def members(self) -> str:
        """Say how many members the images have."""
        counts = self._members or Counter({0: 1})
        if self.chosen_of:
            return f"{max(counts)} chosen of {self.chosen_of} candidates, which all serve mask, probability and sizes"
        mean = sum(number * times for number, times in counts.items()) / counts.total()
        return f"mean {mean:.1f} ({min(counts)}–{max(counts)})"

    def cut(self) -> str:
        """Say so if sizes are of what is seen of structures that the border of the image cuts."""
        count = self._incomplete
        return f"In {count} of {self.count} images a structure reaches the border; see {MEASURES}." if count else ""

    def warning(self) -> str:
        """Say so if the results look like those of a model that has not been trained long enough."""
        return warning_of_kinds(self._seen)

    def rest(self) -> str:
        """Say what is not among the results; nothing where all is."""
        told = [f"{count} are left out ({why})" for why, count in sorted(self.left_out.items())]
        told += [f"{self.missing} have no record yet"] if self.missing else []
        return f"{'; '.join(told)}; 'medsegdiff segment --resume' does them." if told else ""
