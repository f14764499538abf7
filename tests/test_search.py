"""The example of docs/howto/search.md: processes share a study, and it goes on after one of them was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from srcell.cli import build_parser
from srcell.cli.options import given_settings
from srcell.training import TrainingConfig

pytestmark = pytest.mark.landing

optuna = pytest.importorskip("optuna")
EXAMPLE = Path(__file__).parent.parent / "examples" / "python" / "search.py"


def search(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLE), str(folder), "--trials", "6", "--epochs", "1"]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True)


def test_processes_share_a_study_that_goes_on_after_a_kill(tmp_path: Path) -> None:
    with search(tmp_path) as killed:
        while not (tmp_path / "trial-1-seed-0").exists():
            assert killed.poll() is None
            time.sleep(0.01)
        killed.kill()
    with search(tmp_path) as first, search(tmp_path) as second:
        printed = [process.communicate()[0].splitlines()[-1] for process in (first, second)]
    assert first.returncode == second.returncode == 0
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log")))
    study = optuna.load_study(study_name="digits", storage=storage)
    ended = [trial for trial in study.trials if trial.state.is_finished()]
    assert len(ended) in (6, 7) and len(study.trials) > len(ended)  # both may have begun the last; one was killed
    assert (tmp_path / "importances.png").stat().st_size > 1000
    sizes = tuple(map(int, study.best_params["hidden_sizes"].split()))
    best = (f"{study.best_value:.2%}", study.best_params | {"hidden_sizes": sizes})
    lines = [line.partition(": srcell ") for line in printed]
    said = [(value, given_settings(build_parser().parse_args(command.split()))) for value, _, command in lines]
    assert best in said  # whichever ends first may not know the trial of the other
    assert TrainingConfig.preset("best", "digits", **best[1])
