"""What a person sees of training: a progress bar, the log, curves, trackers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from accelerate import Accelerator
from rich.console import Console

from medsegdiff.pictures.curves import save, training_curves
from medsegdiff.progress import bar_on
from medsegdiff.training.run import Run


class Monitor:
    """Reports on the main process; the others are silent."""

    def __init__(self, run: Run, accelerator: Accelerator, *, start: int, stop: int | None, console: Console) -> None:
        self.run, self.accelerator, self.console = run, accelerator, console
        self.active = accelerator.is_main_process
        self.bar = bar_on(console, "training", stop, done=start)
        self.dice = ""
        self._seen, self._since = 0, time.monotonic()

    def __enter__(self) -> Monitor:
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def count(self, images: int) -> None:
        """Count images that were trained on."""
        self._seen += images

    def step(self, step: int, numbers: Mapping[str, float]) -> None:
        """Report losses."""
        rate = self._seen / max(time.monotonic() - self._since, 1e-9)
        self._seen, self._since = 0, time.monotonic()
        record = {"step": step, **numbers, "images_per_s": rate}
        if self.active:
            shown = f"loss {numbers['loss']:.3f}{self.dice} · {rate:.1f} images/s"
            self.bar.update(step, note=shown)
            self.run.append(record)
        self.accelerator.log({k: v for k, v in record.items() if k != "step"}, step=step)

    def settled(self, step: int, total: int, step_seconds: float) -> None:
        """Report how many steps fit into the time that there is."""
        if self.active:
            self.bar.update(total=total)
            self.run.append({"step": step, "settled": total, "step_seconds": step_seconds})
            self.console.print(f"{total} steps fit, at {step_seconds:.2f} s each.", highlight=False)

    def validated(self, step: int, numbers: Mapping[str, float], *, best: bool) -> None:
        """Report a validation and draw the curves."""
        self.dice = f" · Dice {numbers['dice']:.3f}"
        self.accelerator.log({f"val/{key}": value for key, value in numbers.items()}, step=step)
        if self.active:
            self.run.append({"step": step, **numbers})
            save(training_curves(self.run.lines()), self.run.curves)
            anchor = f", {numbers['dice_anchor']:.4f} anchor" if "dice_anchor" in numbers else ""
            self.console.print(
                f"step {step:>6} · validation Dice {numbers['dice']:.4f} fused, "
                f"{numbers['dice_member']:.4f} one member{anchor} "
                f"· IoU {numbers['iou']:.4f} · agreement {numbers['agreement']:.3f}"
                + (" · best so far" if best else "")
            )
        self._seen, self._since = 0, time.monotonic()  # sampling is not training time
