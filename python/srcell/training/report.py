"""``page``: renders a run as one HTML page with its pictures; the page opens offline.

Run folders call this.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from math import isnan, sqrt
from string import Template
from typing import Any

from ..diagnosis import HEAD, Diagnosis
from ..evaluation import Evaluation
from ..kernels import info
from .config import OWN, SETTINGS, TrainingConfig
from .metrics import EpochMetrics, best_epoch, remark

# The caption of each picture, in the order of the page.
CAPTIONS = {
    "learning_curve.png": "Metrics of each epoch. Training samples are counted during the epoch, while the weights "
    "change; validation samples are evaluated after it.",
    "raster.png": "One test sample: a mark where an element is active (s &gt; 0), and the logit of each class "
    "from the steps so far. A neuron whose bias training raised above about -4.6 fires without input, about every 23 "
    "steps, also in the silent steps; the readout counts those spikes alike for every sample.",
    "traces.png": "The same sample in four neurons of the last layer: the most active voter for each of the four "
    "classes with the largest logits or, with a linear readout, the four most active neurons.",
    "steps.png": "One test sample: a mark where an input is active, the true class of each step, and the predicted "
    "one. White: without a label, above.",
    "rates.png": "The activity of the neurons on the test set, sorted.",
    "confusion.png": "Predicted classes of the test samples of each class.",
    "delays.png": "Each delay before and after training; on the line a delay has not changed.",
}

SQUARE = ("rates.png", "confusion.png", "delays.png")

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #59636e; --line: #d9dee3; --ground: #fff; --card: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --dim: #9aa5b1; --line: #30363d; --ground: #0d1117; --card: #161b22; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 60rem;
       margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .6rem; }
p, figcaption { color: var(--dim); margin: .3rem 0 1rem; }
dl.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
dl.figures div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .9rem; }
dl.figures dt { color: var(--dim); font-size: .85rem; }
dl.figures dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0 2rem; }
figure.square img { max-width: min(36rem, 100%); }
img { max-width: 100%; height: auto; background: #fff; border-radius: .4rem; }
.scroll, figure { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; }
tr.changed td:nth-child(2) { font-weight: 600; }
@media (max-width: 40em) {
  figure:not(.square) img { max-width: none; width: 40rem; }
  figcaption { position: sticky; left: 0; }
  table { min-width: 32rem; }
}
</style>
</head>
<body>
<h1>$title</h1>
<p>$subtitle</p>
<dl class="figures">$figures</dl>
$pictures
<h2>A mean inference</h2>
<p>A synaptic operation is one event that meets one outgoing weight: an addition where events are binary, a multiply-add
where they are graded.</p>
<div class="scroll"><table>$layers</table></div>
$diagnosis
<h2>Configuration</h2>
<p>Settings that differ from their defaults are bold.</p>
<div class="scroll"><table>$settings</table></div>
<h2>Environment</h2>
<div class="scroll"><table>$environment</table></div>
</body>
</html>
""")


def page(
    config: TrainingConfig,
    history: Sequence[EpochMetrics],
    evaluation: Evaluation,
    images: Mapping[str, bytes],
    diagnosis: Diagnosis | None = None,
) -> str:
    """Render the page.

    ``images`` are PNG files under names of ``CAPTIONS``; a run that does not learn delays has no plot of them. The
    diagnosis is of the network on test samples, or None to leave it out.
    """
    seconds = sum(metrics.seconds for metrics in history)
    result = {"test accuracy": f"{evaluation.accuracy:.2%}"}
    if evaluation.of_steps:
        result = {
            "test accuracy of steps": f"{evaluation.accuracy:.2%}",
            "mean of each sample's": f"{evaluation.sample_accuracy:.2%}",
        }
    if not len(evaluation.confusion):
        result = {"test error (RMS)": f"{sqrt(evaluation.loss):.4g}", "R2": f"{evaluation.r2:.3f}"}
        if not isnan(evaluation.r2_of_mean):
            result["R2 of the mean"] = f"{evaluation.r2_of_mean:.3f}"
    figures = {
        **result,
        f"test {'steps' if evaluation.of_steps else 'samples'}": f"{evaluation.answers:,}",
        "epochs": str(len(history)),
        **({"weights of epoch": str(best_epoch(history))} if config.patience else {}),
        "training": f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min",
        "events per inference": f"{sum(layer.events for layer in evaluation.counts):,.0f}",
    }
    if not isnan(operations := evaluation.synaptic_operations):
        figures["synaptic operations"] = f"{operations:,.0f}"
    layers = [
        (f"layer {k}" if k else "input", *("" if isnan(count) else f"{count:,.0f}" for count in layer))
        for k, layer in enumerate(evaluation.counts)
    ]
    used = config.used() if config.dataset == OWN else SETTINGS.keys()
    settings = [(name, _shown(getattr(config, name)), x.text) for name, x in SETTINGS.items() if name in used]
    changed = {name for name, setting in SETTINGS.items() if getattr(config, name) != setting.default}
    made, said = f"A run of srcell {info()['version']}, seed {config.seed}.", remark(history, evaluation, config)
    sizes = "-".join(str(rate.numel()) for rate in evaluation.rates)
    return PAGE.substitute(
        title=escape(f"{config.dataset}: {next(iter(result.values()))} with {sizes} neurons"),
        subtitle=escape(" ".join(x for x in (made, said and f"The network is {said}") if x)),
        figures="".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in figures.items()),
        pictures="\n".join(_picture(name, images[name], text) for name, text in CAPTIONS.items() if name in images),
        layers=_table(("", "events", "spikes", "additions", "multiply-adds"), layers, numbers=True),
        diagnosis="" if diagnosis is None else _diagnosis(diagnosis),
        settings=_table(("setting", "value", "what it is"), settings, bold=changed),
        environment=_table(("", ""), ((name, _shown(value)) for name, value in info().items())),
    )


def _picture(name: str, image: bytes, caption: str) -> str:
    source = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    title = name.removesuffix(".png").replace("_", " ")
    kind = ' class="square"' if name in SQUARE else ""
    return (
        f'<h2>{title.capitalize()}</h2>\n<figure{kind}><img src="{source}" alt="{title} of the run">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _diagnosis(diagnosis: Diagnosis) -> str:
    findings = "".join(f"<li>{escape(line)}</li>" for line in diagnosis.findings)
    return (
        "<h2>Diagnosis</h2>\n<p>What <code>srcell.diagnose</code> says of the network on 64 test samples.</p>\n"
        f"<ul>{findings or '<li>nothing looks wrong</li>'}</ul>\n"
        f'<div class="scroll"><table>{_table(HEAD, (layer.cells() for layer in diagnosis.layers), numbers=True)}'
        "</table></div>"
    )


def _shown(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list | tuple) else str(value)


def _table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False, bold: Collection[str] = ()
) -> str:
    """A table, numbers aligned right; ``bold`` has the first cells of the rows whose second cell is bold."""
    kind = ' class="number"' if numbers else ""
    cells = "".join(f"<th{kind if k else ''}>{escape(name)}</th>" for k, name in enumerate(head))
    lines = [f"<thead><tr>{cells}</tr></thead><tbody>"] if any(head) else ["<tbody>"]
    for first, *others in rows:
        row = ' class="changed"' if first in bold else ""
        cells = "".join(f"<td{kind}>{escape(text)}</td>" for text in others)
        lines.append(f"<tr{row}><td>{escape(first)}</td>{cells}</tr>")
    return "\n".join([*lines, "</tbody>"])
