"""What a real SLURM tells the scripts of docs/cluster; that they segment, too, is in tests/fuzz/test_clusters.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from medsegdiff.inference.launched import launched
from medsegdiff.inference.team import part_of
from tests.slurm import missing, slurm

SCRIPTS = Path(__file__).parents[2] / "docs" / "cluster"
STAND_IN = """#!{python}
import json, os, sys
name = "-".join(os.environ.get(key, "") for key in ("SLURM_JOB_ID", "SLURM_PROCID"))
with open(os.path.join({folder!r}, name + ".json"), "w") as file:
    json.dump([sys.argv[1:], dict(os.environ)], file)
"""
"""Writes down how it was called."""


@pytest.mark.skipif(missing() != "", reason=f"{missing()} of SLURM not installed")
def test_tasks_of_arrays_and_of_srun_find_their_share(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "medsegdiff"
    program.parent.mkdir()
    (tmp_path / "told").mkdir()
    program.write_text(STAND_IN.format(python=sys.executable, folder=str(tmp_path / "told")))
    program.chmod(0o755)
    program.with_name("torchrun").symlink_to(program)
    path = os.pathsep.join((str(program.parent), os.environ["PATH"]))
    with slurm(path) as cluster:
        quiet = ("--cpus-per-task=1", f"--output={cluster.home}/%j.out")
        array = cluster.submit("--array=1-5:2", *quiet, SCRIPTS / "slurm_array.sbatch", "IMAGES", "RUN", "OUT", "-q")
        srun = cluster.submit("--ntasks-per-node=2", *quiet, SCRIPTS / "slurm_srun.sbatch", "IMAGES", "RUN", "OUT")
        more = (f"--export=ALL,SCRIPTS={SCRIPTS},PROCESSES=4", *quiet)
        train = cluster.submit("--nodes=1", *more, SCRIPTS / "train_slurm.sbatch", "DATA", "RUN", "--preset", "v2")
        ended = [state for job in (array, srun, train) for state in cluster.ended(job)]
        assert ended == ["COMPLETED"] * 5, cluster.said()
    told = [json.loads(file.read_text()) for file in sorted((tmp_path / "told").iterdir())]
    same = ["segment", "IMAGES", "--model", "RUN", "--out", "OUT"]
    parts = [part_of(args[-2], env) for args, env in told if args == [*same, "--part", "array", "-q"]]
    assert sorted(part.index for part in parts) == [1, 2, 3]
    assert {part.count for part in parts} == {3}
    tasks = [env for args, env in told if args == [*same, "--resume"]]
    assert sorted(map(str, map(launched, tasks))) == ["(0, 2, 0)", "(1, 2, 1)"]
    assert {env["MASTER_ADDR"] for env in tasks} == {"localhost"}
    assert len({env["MASTER_PORT"] for env in tasks}) == 1
    (trained,) = (args for args, _ in told if "train" in args)
    assert trained[:4] == ["--nnodes", "1", "--nproc-per-node", "4"]
    assert trained[trained.index("--rdzv-endpoint") + 1].startswith("localhost:2")
    assert trained[-6:] == ["DATA", "--out", "RUN", "--auto-resume", "--preset", "v2"]
