"""The scripts of docs/cluster with real launchers: the files of one process, byte for byte.

Each process imports PyTorch anew, for seconds, which takes too long for every change: `make fuzz` has it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from safetensors import safe_open

from medsegdiff.models.checkpoint import BEST, LAST, STATE
from tests.makers import make_folder
from tests.program import SETS, call
from tests.results import contents
from tests.slurm import free_ports, missing, slurm, wait_for

SCRIPTS = Path(__file__).parents[2] / "docs" / "cluster"
PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
ASKED = ("--members", "2", "--steps", "1", "--batch-size", "2", "--write", "masks,probability", "--device", "cpu")


@pytest.fixture(autouse=True)
def _nightly(request: pytest.FixtureRequest) -> None:
    if request.config.option.fuzz_kills < 10:
        pytest.skip("starts many processes; 'make fuzz' has it")


def started(script: str, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start a script as a user does."""
    return subprocess.Popen(
        ["bash", str(SCRIPTS / script), *map(str, arguments)],
        env={**os.environ, "PATH": PATH, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for its end, which must be a good one; give what was said."""
    try:
        said, _ = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun ends what it has started
        said, _ = process.communicate()
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def whole(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What one process makes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert call("segment", trained[1] / "images", "-m", trained[0], "-o", out, *ASKED) == 0
    return contents(out)


@pytest.mark.parametrize(
    ("script", "environment"),
    [
        ("torchrun.sh", {"PROCESSES": "3"}),
        ("torchrun.sh", {"PROCESSES": "1"}),
        ("shells.sh", {"PARTS": "4"}),
    ],
)
def test_a_script_makes_what_one_process_makes(
    script: str, environment: Mapping[str, str], trained: tuple[Path, Path], whole: dict[str, object], tmp_path: Path
) -> None:
    arguments = (trained[1] / "images", trained[0], tmp_path / "out", *ASKED)
    ended(started(script, *arguments, **environment))
    assert contents(tmp_path / "out") == whole
    ended(started(script, *arguments, **environment))  # once more: all is done
    assert contents(tmp_path / "out") == whole


KILLED = """
import os, signal
from pathlib import Path
from medsegdiff.inference.saving import Saving

write, mark = Saving.write, Path(__file__).with_name("killed")

def kill(self, timed):
    write(self, timed)
    if os.environ["RANK"] == "0" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)

Saving.write = kill
"""
"""The first process dies after its first case."""


def test_what_torchrun_starts_again_goes_on(
    trained: tuple[Path, Path], whole: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    more = (*ASKED, "--plugin", str(tmp_path / "killed.py"))
    said = ended(started("torchrun.sh", trained[1] / "images", trained[0], tmp_path / "out", *more, PROCESSES="2"))
    assert (tmp_path / "killed").exists()
    assert "0 are done" in said
    assert without_plugins(contents(tmp_path / "out")) == whole


def without_plugins(made: dict[str, object]) -> dict[str, object]:
    """Drop what is told of the plug-in that disturbs."""
    for file in ("segment.json", "cases/run.json"):
        assert isinstance(made[file], dict)
        assert len(made[file].pop("plugins")) == 1
        made[file]["plugins"] = []
    return made


def test_tasks_of_an_array_of_pbs_make_what_one_process_makes(
    trained: tuple[Path, Path], whole: dict[str, object], tmp_path: Path
) -> None:
    told = {"PARTS": "2", "IMAGES": str(trained[1] / "images"), "RUN": str(trained[0]), "OUT": str(tmp_path / "out")}
    text = (SCRIPTS / "pbs_array.pbs").read_text().replace("--part", f"{' '.join(ASKED)} --part")
    (tmp_path / "array.pbs").write_text(text)
    for index in ("2", "1"):
        ended(started(str(tmp_path / "array.pbs"), PBS_ARRAY_INDEX=index, **told))
    assert contents(tmp_path / "out") == whole


@pytest.mark.skipif(missing() != "", reason=f"{missing()} of SLURM not installed")
def test_tasks_of_srun_pull_cases_and_make_what_one_process_makes(
    trained: tuple[Path, Path], whole: dict[str, object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with slurm(PATH) as cluster:
        options = ("--nodes=1", "--ntasks-per-node=3", f"--output={cluster.home}/job.out")
        job = cluster.submit(*options, SCRIPTS / "slurm_srun.sbatch", trained[1] / "images", trained[0], out, *ASKED)
        assert cluster.ended(job) == ["COMPLETED"], cluster.said()
        said = (cluster.home / "job.out").read_text()
        assert all(f"process {number} of 3" in said for number in (1, 2, 3)), said
    assert contents(out) == whole


HOLD = """
import os, time
from pathlib import Path
from medsegdiff.inference.saving import Saving

write, here = Saving.write, Path(__file__).parent

def hold(self, timed):
    write(self, timed)
    if os.environ["SLURM_ARRAY_TASK_ID"] == "0" and "SLURM_RESTART_COUNT" not in os.environ:
        (here / "reached").touch()
        time.sleep(600)

Saving.write = hold
"""
"""After its first case the first task hangs, until it is ended."""


@pytest.mark.skipif(missing() != "", reason=f"{missing()} of SLURM not installed")
def test_an_array_of_which_a_task_is_requeued_makes_what_one_process_makes(
    trained: tuple[Path, Path], whole: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "hold.py").write_text(HOLD)
    with slurm(PATH) as cluster:
        options = ("--array=0-1", "--cpus-per-task=1", f"--output={cluster.home}/%a.out")
        more = (*ASKED, "--plugin", str(tmp_path / "hold.py"))
        job = cluster.submit(
            *options, SCRIPTS / "slurm_array.sbatch", trained[1] / "images", trained[0], tmp_path / "out", *more
        )
        wait_for((tmp_path / "reached").exists, cluster.said)
        cluster.ask("scontrol", "requeue", f"{job}_0")
        assert cluster.ended(job) == ["COMPLETED"] * 2, cluster.said()
        assert "Restarts=1" in cluster.ask("scontrol", "show", "job", f"{job}_0")
        assert "1 are done;" in (cluster.home / "0.out").read_text()
    assert without_plugins(contents(tmp_path / "out")) == whole


WATCHED = """
import json, os, signal
from pathlib import Path
import medsegdiff.training.trainer as trainer

as_batch, here = trainer.as_batch, Path(__file__).parent

def watched(loaded):
    batch = as_batch(loaded)
    log = here / f"drawn-{os.environ['RANK']}.jsonl"
    with log.open("a") as file:
        file.write(json.dumps([os.getpid(), list(batch.positions)]) + "\\n")
    chosen = os.environ.get("KILL") == os.environ["RANK"] and not (here / "killed").exists()
    if chosen and batch.positions[0] >= 4 * 4:  # in the fifth step, after the checkpoint of the fourth
        (here / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return batch

trainer.as_batch = watched
"""
STEPS = ("--set", "train.batch_size=2", "--set", "train.max_steps=6", "--set", "train.save_every=2")
TRAIN = (*SETS, *STEPS, "--set", "train.val_every=6", "--set", "train.ema_decay=0.5", "--device", "cpu")
WEIGHTS = (STATE, LAST, BEST)


@pytest.fixture
def machines(tmp_path: Path) -> Path:
    """A folder with data that two process groups train on, which stand for two machines."""
    make_folder(tmp_path / "data")
    return tmp_path


def train_on_two(folder: Path, name: str, **environment: str) -> dict[str, dict[str, object]]:
    """Train in two process groups that meet at a port; give weights, averages and moments of the optimizer."""
    (folder / name).mkdir()
    (folder / name / "watched.py").write_text(WATCHED)
    (port,) = free_ports(1)
    told = {"FIRST": "127.0.0.1", "PORT": str(port), "MACHINES": "2", "PROCESSES": "1", **environment}
    plugin = ("--plugin", str(folder / name / "watched.py"))
    both = [
        started("train_machines.sh", folder / "data", folder / name / "run", *TRAIN, *plugin, **told) for _ in range(2)
    ]
    for one in both:
        ended(one)
    return {file: told_of(folder / name / "run" / file) for file in WEIGHTS}


def told_of(file: Path) -> dict[str, object]:
    """Read tensors as bytes, and what is told of them."""
    with safe_open(file, framework="np") as stored:
        return {name: stored.get_tensor(name).tobytes() for name in stored.keys()} | {"facts": stored.metadata()}  # noqa: SIM118


def test_two_machines_train_and_a_killed_process_changes_no_bit(machines: Path) -> None:
    undisturbed = train_on_two(machines, "undisturbed")
    assert train_on_two(machines, "killed", KILL="1") == undisturbed
    counted = list[int]()
    for rank in (0, 1):
        lines = (machines / "killed" / f"drawn-{rank}.jsonl").read_text().splitlines()
        drawn = [json.loads(line) for line in lines]
        first = [positions for life, positions in drawn if life == drawn[0][0]]
        later = [positions for life, positions in drawn if life != drawn[0][0]]
        assert later[0][0] >= 4 * 4  # from the checkpoint on, not from the start
        kept = [positions for positions in first if positions[0] < 4 * 4]
        counted += [position for positions in (*kept, *later) for position in positions]
    assert sorted(counted) == list(range(6 * 4))
