"""How many inputs are tried, which, and where those are kept that break the promise."""

from __future__ import annotations

import re
import shutil
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from tests.fuzz.promise import Ground

Input = TypeVar("Input")
KEPT = Path("fuzz-failures")
COUNTS: Counter[str] = Counter()


@dataclass
class Fuzz:
    """Draws inputs for one test."""

    ground: Ground
    inputs: int
    seed: int
    test: str
    """Its identifier."""

    def each(self, inputs: SearchStrategy[Input], check: Callable[[Input], None], *, share: float) -> None:
        """Hold a share of all inputs to the promise; of those that break it, the simplest is kept."""

        def hold(one: Input) -> None:
            self.ground.clear()
            COUNTS[self.test] += 1
            try:
                check(one)
            except Exception as error:
                self._keep(error)
                raise

        number = max(1, round(share * self.inputs))
        plan = settings(
            max_examples=number,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )
        plan(seed(self.seed)(given(inputs)(hold)))()

    def _keep(self, error: Exception) -> None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        name = re.sub(r"\W+", "-", self.test.rpartition("::")[2]).strip("-")
        kept = KEPT / f"{name}.{type(error).__name__}.{Path(last.filename).stem}.{last.lineno}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.ground.home, kept, symlinks=True)
        again = f"pytest '{self.test}' --fuzz-inputs={self.inputs} --fuzz-seed={self.seed}"
        error.add_note(f"The input is kept in {kept}. Again: {again}")


@pytest.fixture(scope="session")
def ground(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """Where commands run."""
    return Ground(tmp_path_factory.mktemp("fuzz") / "ground", trained[0], COUNTS)


@pytest.fixture
def fuzz(ground: Ground, request: pytest.FixtureRequest) -> Fuzz:
    """Draw inputs for a test."""
    options = request.config.option
    return Fuzz(ground, options.fuzz_inputs, options.fuzz_seed, request.node.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what was tried."""
    if COUNTS and terminalreporter.config.option.verbose > 0:
        terminalreporter.section("inputs")
        for name, count in sorted(COUNTS.items()):
            terminalreporter.write_line(f"{count:7d} {name}")
