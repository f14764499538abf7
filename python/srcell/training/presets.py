"""Named settings for each data set; docs/training.md says where they come from."""

from __future__ import annotations

from typing import Any

_IMAGES_512 = {
    "hidden_sizes": (512,),
    "batch_size": 256,
    "learning_rate": 5e-3,
    "steps": 100,
    "gain": 0.5,
    "temperature": 3.0,
    "dropout": 0.3,
}

# Settings of each preset: those for every data set under "", those for one data set under its name.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "best": {
        "mnist": {"epochs": 25, **_IMAGES_512},
        "fashion-mnist": {
            "epochs": 35,
            **_IMAGES_512,
            "temperature": 10.0,
            "readout_alpha": 1.0,
            "dropout": 0.15,
        },
        "nmnist": {
            "hidden_sizes": (512,),
            "epochs": 40,
            "batch_size": 32,
            "learning_rate": 5e-3,
            "temperature": 10.0,
            "alpha": 0.97,
            "readout_alpha": 1.0,
            "dropout": 0.7,
        },
    },
    "fast": {
        "": {"epochs": 6, "batch_size": 256, "learning_rate": 1e-2, "temperature": 3.0},
    },
    "deep": {
        "": {
            "hidden_sizes": (128,) * 10,
            "epochs": 24,
            "batch_size": 256,
            "learning_rate": 1.2e-2,
            "steps": 100,
            "gain": 0.5,
            "temperature": 6.0,
            "readout_alpha": 1.0,
            "balance_gradients": True,
        },
    },
    "reference": {
        "": {"hidden_sizes": (), "epochs": 16, "batch_size": 256, "learning_rate": 1e-2, "steps": 200, "gain": 0.25},
    },
}
