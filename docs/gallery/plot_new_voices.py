"""A network learns new voices
===========================

A network of spoken digits was trained on five speakers, and meets a sixth. It learns from a few
recordings of each digit, in :mod:`srcell.runtime`, without torch. This example draws what that
brings; :doc:`/howto/learning` has the code, and what learning costs. The recordings are not part
of the documentation: the numbers are those that ``experiments/adapt.py`` measured.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

found = json.loads(Path("../../experiments/results/adapt.json").read_text())
recordings = (0, 1, 3, 5)


def accuracies(of_speaker: dict) -> list[float]:
    """In percent, before and after learning from so many recordings of each digit."""
    learnt = of_speaker["all"]
    after = [learnt[str(count)]["accuracy"] for count in recordings[1:]]
    return [of_speaker["before"]["accuracy"], *after]


# %%
# Each point is the mean of three networks and three draws of the recordings, tested on the rest of the speaker's 500
# recordings. The voices differ most before learning; five recordings of each digit bring all of them to 95 % and more.

figure, panel = plt.subplots(figsize=(6.4, 4), layout="constrained")
for speaker, of_speaker in sorted(found["src"].items()):
    panel.plot(recordings, accuracies(of_speaker), marker=".", label=speaker)
gru = np.mean(
    [accuracies(of_speaker) for of_speaker in found["gru"].values()], axis=0
)
panel.plot(recordings, gru, "k--", label="GRU, mean")
panel.set_xticks(recordings)
panel.set_xlabel("recordings of each digit")
panel.set_ylabel("accuracy, %")
panel.legend(loc="lower right", ncols=2)

# %%
# What it learns it takes from others: the same networks on the test recordings of the five speakers of the training.

for kind, name in (("src", "SRC"), ("gru", "GRU")):
    of_speakers = found[kind].values()
    others = [each["all"]["5"]["others"] for each in of_speakers]
    print(f"{name}: {np.mean(others):.1f} % after five recordings of each digit")
