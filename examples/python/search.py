"""Search for settings of ``srcell train`` with Optuna: ``python search.py FOLDER``, in one process or in several."""

import argparse
from pathlib import Path
from statistics import mean

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from srcell.training import Observer, TrainingConfig, train
from srcell.training.config import SETTINGS

SEEDS = (0, 1)  # of each configuration
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def drawn(trial):
    """The settings that are searched for, by their names in ``TrainingConfig``."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 5e-2, log=True),
        "hidden_sizes": trial.suggest_categorical("hidden_sizes", ["16", "32", "32 16"]),
        "surrogate": trial.suggest_categorical("surrogate", ["straight_through", "relu"]),
        "recurrent": trial.suggest_categorical("recurrent", [False, True]),
        "steps": trial.suggest_int("steps", 10, 30, step=10),
    }


class Pruning(Observer):
    """Reports each epoch's validation accuracy, and ends a trial that is behind the others."""

    def __init__(self, trial):
        self.trial = trial

    def on_epoch(self, metrics):
        self.trial.report(metrics.validation_accuracy, metrics.epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def accuracy(trial, folder, epochs):
    """The mean validation accuracy over the seeds; the first of them decides whether to go on."""
    settings = drawn(trial)
    settings["hidden_sizes"] = tuple(map(int, settings["hidden_sizes"].split()))
    found = []
    for seed in SEEDS:
        config = TrainingConfig.preset("best", "digits", **settings, epochs=epochs, seed=seed)
        out = folder / f"trial-{trial.number}-seed-{seed}"
        run = train(config, out, Pruning(trial) if seed == SEEDS[0] else None)
        found.append(run.history[-1].validation_accuracy)
    return mean(found)


def as_options(settings):
    """Settings as options of ``srcell train``."""
    flags = {True: "--{}", False: "--no-{}"}
    for name, value in settings.items():
        option = SETTINGS[name].option.removeprefix("--")
        yield flags[value].format(option) if isinstance(value, bool) else f"--{option} {value}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the study; processes that name the same one share the work")
    parser.add_argument("--trials", type=int, default=20, help="of all processes together [20]")
    parser.add_argument("--epochs", type=int, default=5, help="of each run [5]")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(folder / "study.log")))
    study = optuna.create_study(storage=storage, study_name="digits", direction="maximize", load_if_exists=True)
    enough = MaxTrialsCallback(arguments.trials, states=DONE)
    if len(study.get_trials(states=DONE)) < arguments.trials:
        study.optimize(lambda trial: accuracy(trial, folder, arguments.epochs), callbacks=[enough])
    if len({trial.value for trial in study.get_trials(states=(TrialState.COMPLETE,))}) > 1:
        panel = optuna.visualization.matplotlib.plot_param_importances(study)
        panel.figure.savefig(folder / "importances.png", bbox_inches="tight")
    print(f"{study.best_value:.2%}: srcell train digits", *as_options(study.best_params))
