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

# One layer with recurrent weights and many time constants, and a linear readout of this layer.
_SEQUENCE = {
    "hidden_sizes": (256,),
    "recurrent": True,
    "alpha": 0.5,
    "slowest_alpha": 0.99,
    "zs_hyp": 0.5,
    "readout": "linear",
    "readout_alpha": 0.97,
    "initial_state": "rest",
    "prefix": 0,
    "batch_size": 128,
    "learning_rate": 1e-2,
    "clip_norm": 1.0,
}
_PIXELS = {
    "hold": 1,
    "epochs": 16,
    "learning_rate": 2e-3,
    "slowest_alpha": 0.998,
    "zs_hyp": 0.3,
    "omega": 0.03,
    "highest_omega": 2.5,
    "input_gain": 1.0,
    "recurrent_delay": 240,
    "whole_delays": True,
    "readout_alpha": 1.0,
    "readout_window": 60,
    "hidden_sizes": (384,),
    "input_delay": 240,
    "taps": 16,
}
# A line of delays over all pixels, and neurons that remember a few steps.
_PERMUTED = {
    "recurrent": False,
    "recurrent_delay": 0,
    "epochs": 8,
    "learning_rate": 1e-2,
    "slowest_alpha": 0.95,
    "zs_hyp": 0.1,
    "readout_window": 10,
    "hidden_sizes": (512,),
    "input_delay": 780,
    "taps": 256,
}
_SEQUENCES = {
    "seqmnist-rows": {
        **_SEQUENCE,
        "epochs": 15,
        "hold": 4,
        "learning_rate": 5e-3,
        "zs_hyp": 0.3,
        "omega": 0.01,
        "highest_omega": 1.0,
        "recurrent_delay": 20,
        "hidden_sizes": (512,),
        "input_delay": 32,
        "taps": 9,
        "dropout": 0.3,
    },
    "seqmnist": {**_SEQUENCE, **_PIXELS, "epochs": 20},
    "psmnist": {**_SEQUENCE, **_PIXELS, **_PERMUTED},
    "japanese-vowels": {
        **_SEQUENCE,
        "epochs": 60,
        "hold": 4,
        "batch_size": 16,
        "validation": 0.0,
        "omega": 0.02,
        "highest_omega": 1.0,
        "input_gain": 1.0,
    },
    "spoken-digits": {
        **_SEQUENCE,
        "epochs": 20,
        "hold": 1,
        "omega": 0.02,
        "highest_omega": 1.0,
        "readout_alpha": 1.0,
        "batch_size": 64,
        "learning_rate": 5e-3,
        "weight_decay": 0.01,
    },
    "braille": {**_SEQUENCE, "hidden_sizes": (128,), "rho": 10.0, "rs": -4.0, "zs_hyp": 0.2, "omega": 0.02}
    | {"highest_omega": 1.0, "input_gain": 1.0, "hold": 1, "standardise": True, "readout_alpha": 1.0}
    | {"epochs": 10, "batch_size": 32},
    "delayed-recall": {**_SEQUENCE, "hidden_sizes": (128,), "epochs": 2, "readout_window": 20, "validation": 0.0},
}

_OWN_SEQUENCES = {
    **_SEQUENCE,
    "hidden_sizes": (128,),
    "rho": 10.0,
    "rs": -4.0,
    "zs_hyp": 0.2,
    "omega": 0.02,
    "highest_omega": 1.0,
    "standardise": True,
    "readout_alpha": 1.0,
    "hold": 1,
    "epochs": 60,
    "batch_size": 16,
    "learning_rate": 1e-2,
}

# Marked bits that must be remembered to the end. Marks may be a step apart: refractory times are short.
_ADDING = {
    **_SEQUENCE,
    "hidden_sizes": (128,),
    "epochs": 12,
    "zs_hyp": 0.1,
    "input_gain": 2.0,
    "omega": 0.02,
    "highest_omega": 1.0,
}

# A class for each step: a readout of the last steps, neurons that remember hundreds, and much weight decay.
_HEARTBEATS = {
    **_SEQUENCE,
    "hidden_sizes": (320,),
    "epochs": 20,
    "batch_size": 32,
    "weight_decay": 1.0,
    "label_smoothing": 0.1,
    "rho": 5.0,
    "rs": -4.0,
    "zs_hyp": 0.2,
    "slowest_alpha": 0.9975,
    "omega": 0.005,
    "highest_omega": 1.0,
    "input_gain": 1.0,
    "readout_alpha": 0.95,
}

# Sixteen learnt delays of each input.
_INTERVALS = {
    "hidden_sizes": (32,),
    "epochs": 20,
    "batch_size": 64,
    "learning_rate": 4e-2,
    "clip_norm": 1.0,
    "alpha": 0.5,
    "zs_hyp": 0.5,
    "surrogate": "relu",
    "initial_state": "rest",
    "readout": "linear",
    "readout_alpha": 1.0,
    "prefix": 0,
    "input_delay": 64,
    "taps": 16,
    "learn_delays": True,
    "delay_width": (8, 1),
    "delay_learning_rate": 0.1,
}

# One's own data: its encoding. Sequences are standardised, and the cell is that of SRC.for_sequences.
OF_OWN: dict[str, dict[str, Any]] = {
    "images": {},
    "sequences": {"encoding": "held"},
    "sounds": {"encoding": "sound"},
    "events": {"encoding": "none"},
}

# Images seen by the simulated camera, for all presets; recordings of a camera differ in three of these.
OF_CAMERA: dict[str, Any] = {
    "hidden_sizes": (512,),
    "epochs": 8,
    "batch_size": 64,
    "learning_rate": 5e-3,
    "temperature": 10.0,
    "alpha": 0.97,
    "readout_alpha": 1.0,
    "dropout": 0.4,
}

# Settings of each preset: those for every data set under "", those for one data set under its name.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "best": {
        **_SEQUENCES,
        "sequences": _OWN_SEQUENCES,
        "sounds": _SEQUENCES["spoken-digits"],
        "intervals": _INTERVALS,
        "adding": _ADDING,
        "qtdb": _HEARTBEATS,
        "qtdb-labelled": _HEARTBEATS,
        "mnist": {"epochs": 25, **_IMAGES_512},
        "fashion-mnist": {"epochs": 35, **_IMAGES_512, "temperature": 10.0, "readout_alpha": 1.0, "dropout": 0.15},
        "nmnist": {**OF_CAMERA, "epochs": 40, "batch_size": 32, "dropout": 0.7},
    },
    "fast": {"": {"epochs": 6, "batch_size": 256, "learning_rate": 1e-2, "temperature": 3.0}},
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
    "integer": {
        "": {
            "integer": True,
            "weight_bits": (4,),
            "hidden_sizes": (),
            "steps": 40,
            "prefix": 4,
            "epochs": 20,
            "batch_size": 64,
            "learning_rate": 1e-2,
            "weight_decay": 0.1,
            "temperature": 3.0,
            "readout_alpha": 1.0,
        },
    },
    "reference": {
        "": {"hidden_sizes": (), "epochs": 16, "batch_size": 256, "learning_rate": 1e-2, "steps": 200, "gain": 0.25},
    },
}
