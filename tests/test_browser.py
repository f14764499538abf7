"""The pages of docs/play and their WebAssembly module: the same bits as native code in node and in Chromium; sliders
and drawings agree with native code; no error in the console, no page wider than a phone, small files.

`tools/check.sh` builds the documentation and sets SRCELL_BROWSER to its folder; without that variable there is nothing
to test. The tests need node and Chromium: CHROME names the browser, by default the first of some usual names that is
found.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import srcell
from srcell import EventBatch, ResonantState, SRCState, data, runtime
from srcell.models import SRCClassifier
from support.networks import bytes_of, joined, split
from test_bits import SPIKE_TRAINS, digest
from test_camera import camera_network, random_pictures, small_camera
from test_cochlea import CURRENTS, EVENTS, chirp, file_of
from test_export_networks import composed
from test_learner import batch as learner_batch
from test_learner import network as learner_network
from test_learner import wanted_of
from test_runtime import exported_trains
from test_standardise import NETWORKS as SEQUENCE_NETWORKS
from test_standardise import sequences

wavfile = pytest.importorskip("scipy.io.wavfile", reason='pip install "srcell[train]"')
signal = pytest.importorskip("scipy.signal", reason='pip install "srcell[train]"')
FOLDER = Path(os.environ.get("SRCELL_BROWSER", "no folder")).resolve()
TRAINS = Path(__file__).with_name("browser") / "trains.js"
ROOT = Path(__file__).resolve().parent.parent
CONTROL = ROOT / "examples" / "javascript" / "control.mjs"
CHROMES = ("chromium", "google-chrome", "chromium-browser")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
MOST_BYTES = 340_000  # of all scripts and the module, compressed, without weights
MOST_BYTES_OF_SOUND = 450_000  # of what the page "Say a digit" loads, compressed, with its network
PAGES = ("neuron", "network", "sequence", "sound")

pytestmark = [
    pytest.mark.release,
    pytest.mark.skipif("SRCELL_BROWSER" not in os.environ, reason="SRCELL_BROWSER names no built pages"),
]


def text_of(array: Any) -> str | None:
    return None if array is None else base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def case_of(network: bytes, events: EventBatch) -> dict[str, Any]:
    steps, batch, _ = events.shape
    return {
        "network": base64.b64encode(network).decode(),
        "steps": steps,
        "batch": batch,
        **{name: text_of(getattr(events, name)) for name in ("offsets", "indices", "values")},
        "lengths": None if events.lengths is None else events.lengths.tolist(),
    }


SOUNDS = {"currents": CURRENTS, "events": EVENTS}
RATE = {"steps": 40, "prefix": 3, "gain": 0.5, "thinned": True}


def images() -> np.ndarray:
    return np.random.default_rng(5).random((3, 50), np.float32) * (np.arange(50) % 3 == 0)


@functools.cache
def fed() -> dict[str, bytes]:
    return {name: bytes_of(SEQUENCE_NETWORKS[name]()) for name in ("a classifier", "delays", "Linear", "no prefix")}


LEARNERS = ("recurrent", "two layers, relu", "delays between", "recurrent delays", "resonance")
WORDS = ["tea", 'a "quoted" one', "n\u00f6", "more"]


def exported_learner(name: str) -> bytes:
    return bytes_of(learner_network(name))


def every_step_values() -> np.ndarray:
    values: torch.Tensor = wanted_of("values at every step", learner_batch()[1])
    return values.numpy()


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    settings = {**RATE, "seed": 77, "index": [7, 8, 1000]}
    return {
        "trains": {name: case_of(*train) for name, train in exported_trains().items()},
        "composed": {name: case_of(*network) for name, network in composed().items()},
        "heard": {
            "networks": {name: base64.b64encode(file_of(encoding)).decode() for name, encoding in SOUNDS.items()},
            "sound": text_of(chirp().numpy()),
            "sizes": [1, 300, 0, 79, 81],
        },
        "fed": {
            "networks": {name: base64.b64encode(content).decode() for name, content in fed().items()},
            "values": text_of(sequences().numpy()),
            "batch": sequences().shape[0],
            "elements": sequences().shape[1],
        },
        "encoded": {"pixels": text_of(images()), "inputs": 50, "settings": settings},
        "seen": {
            "network": base64.b64encode(camera_network(small_camera())).decode(),
            "pictures": text_of(random_pictures(3, 8, 5)),
            "pixels": [8, 5],
            "seed": 2**40 + 1,
            "index": [5, 0, 7],
        },
        "learnt": {
            "networks": {name: base64.b64encode(exported_learner(name)).decode() for name in LEARNERS},
            "events": case_of(b"", learner_batch()[0]) | {"network": None},
            "labels": learner_batch()[1].tolist(),
            "values": text_of(every_step_values()),
            "lengths": learner_batch()[0].lengths.tolist(),
            "classes": WORDS,
        },
        "refusals": {"network": base64.b64encode(bytes_of(srcell.SRC(1, 1))).decode(), "images": [0.5]},
    }


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a file server for the pages, with tests/browser as /tests."""

    class Handler(SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            return str(TRAINS) if path == "/tests/trains.js" else super().translate_path(path)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=FOLDER)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def browser_program() -> str:
    program = os.environ.get("CHROME") or next(filter(None, map(shutil.which, CHROMES)), None)
    assert program, f"no browser: expected one of {', '.join(CHROMES)} on PATH, or CHROME"
    return program


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_program(), args=list(FLAGS))
        yield browser
        browser.close()


class Opened:
    """A loaded page and the messages of its console."""

    def __init__(self, browser: Any, url: str, width: int = 1280, scheme: str = "light", height: int = 900) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.text} {message.location}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("requestfailed", lambda request: self.said.append(request.url))
        self.page.goto(url)
        if "/play/" in url:
            self.page.wait_for_selector("[data-play=ready], [data-play=failed]")

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, kind: object, *_: object) -> None:
        self.page.close()
        assert kind or self.said == []


def in_node(cases: dict[str, Any], folder: Path) -> dict[str, Any]:
    play = FOLDER / "_static" / "play"
    (folder / "cases.json").write_text(json.dumps(cases))
    command = ["node", TRAINS, folder / "cases.json", play / "srcell.js", play / "srcell.wasm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def in_chromium(cases: dict[str, Any], address: str, browser: Any) -> dict[str, Any]:
    script = """async (cases) => {
        const { load } = await import("/_static/play/srcell.js");
        const { results } = await import("/tests/trains.js");
        return results(await load("/_static/play/srcell.wasm"), cases);
    }"""
    with Opened(browser, f"{address}/index.html") as page:
        return dict(page.evaluate(script, cases))


@pytest.fixture(scope="module", params=["node", "chromium"])
def made(request: pytest.FixtureRequest, cases: dict[str, Any], tmp_path_factory: Any) -> dict[str, Any]:
    if request.param == "node":
        return in_node(cases, tmp_path_factory.mktemp("node"))
    return in_chromium(cases, request.getfixturevalue("address"), request.getfixturevalue("chromium"))


def test_spike_trains_match_the_recorded_hashes(made: dict[str, Any], cases: dict[str, Any]) -> None:
    recorded = json.loads(SPIKE_TRAINS.read_text())
    trains = made["trains"]
    assert {name: {key: trains[name][key] for key in recorded[name]} for name in trains} == recorded
    streamed = {name for name, case in cases["trains"].items() if case["lengths"] is None}
    assert {name: train["stream"] for name, train in trains.items() if "stream" in train} == {
        name: recorded[name]["sha256"] for name in streamed
    }


def test_networks_of_modules_give_the_bits_of_native_code(made: dict[str, Any]) -> None:
    found = made["composed"]
    for name, (content, events) in composed().items():
        net = runtime.Network(content)
        spikes = digest(torch.from_numpy(net.spikes(events)[-1]))
        assert (found[name]["sha256"], found[name]["stream"]) == (spikes, spikes) and found[name]["events"] > 0
        assert np.array_equal(np.float32(found[name]["logits"]), net.run(events, every_step=False).ravel())


def test_sounds_in_chunks_give_the_logits_of_native_code(made: dict[str, Any]) -> None:
    for name, encoding in SOUNDS.items():
        stream = runtime.Network(file_of(encoding)).stream()
        steps = stream.hear(chirp())
        assert made["heard"][name]["steps"] == steps > 100
        assert np.array_equal(np.float32(made["heard"][name]["logits"]), stream.logits()[0])


def test_sequences_give_the_logits_of_native_code(made: dict[str, Any]) -> None:
    for name, content in fed().items():
        net, values = runtime.Network(content), sequences().numpy()
        stream, steps, logits = net.stream(len(values)), [], []
        for element in values.swapaxes(0, 1):
            steps.append(stream.feed(element))
            logits.append(stream.logits())
        found = made["fed"][name]
        assert found["steps"] == steps and logits[-1].any()
        assert np.array_equal(np.float32(found["logits"]), np.ravel(logits))
        assert np.array_equal(np.float32(found["run"]), net.run(net.encode(values), every_step=False).ravel())


def test_the_camera_gives_the_events_of_native_code(made: dict[str, Any], cases: dict[str, Any]) -> None:
    seen = cases["seen"]
    pictures = torch.from_numpy(random_pictures(3, 8, 5))
    expected = small_camera()(pictures, torch.tensor(seen["index"]), seen["seed"])
    assert (made["seen"]["steps"], made["seen"]["batch"]) == expected.shape[:2]
    assert made["seen"]["offsets"] == expected.offsets.tolist() and len(made["seen"]["indices"]) > 50
    assert made["seen"]["indices"] == expected.indices.tolist()


def test_learners_have_the_bits_of_native_code(made: dict[str, Any]) -> None:
    events, labels = learner_batch()
    for name in LEARNERS:
        learner = runtime.Network(exported_learner(name)).learner(learning_rate=1e-2, classes=WORDS)
        losses = [learner.step(events, labels.numpy()) for _ in range(3)]
        losses.append(learner.step(events, every_step_values()))
        found = made["learnt"][name]
        state = hashlib.sha256(learner.save()).hexdigest()
        assert found["losses"] == losses
        assert (found["sha256"], found["unchanged"]) == (state, state)
        assert np.array_equal(np.float32(found["logits"]), learner.network().run(events).ravel())
        assert found["classes"] == WORDS
        assert found["texts"][0] == "targets: expected labels in [0, 4), got 9"
        assert found["texts"][1] == "targets: expected 6 numbers, got 1"
        assert found["texts"][2].startswith("state: expected ")
        assert found["texts"][3] == "learning_rate: expected a number in (0, 1000], got 0"
        assert found["texts"][4] == "layers: expected all or readout, got none"


def test_the_encoder_gives_the_events_of_native_code(made: dict[str, Any], cases: dict[str, Any]) -> None:
    settings = cases["encoded"]["settings"]
    encoder = data.RateEncoding(**RATE)
    expected = encoder(torch.from_numpy(images()), torch.tensor(settings["index"]), seed=settings["seed"])
    assert made["encoded"]["offsets"] == expected.offsets.tolist()
    assert made["encoded"]["indices"] == expected.indices.tolist()


def test_refused_calls_raise_the_errors_of_native_code(made: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="header") as native:
        runtime.Network(bytes(20))
    texts = made["refusals"]["texts"]
    assert texts[0] == str(native.value)
    assert texts[1].startswith("events: expected ascending offsets, and indices from 0")
    assert texts[2:] == [
        "batch: expected at least 1, got -1",
        "images: expected pixels in [0, 1], got others in sample 0",
        "settings: expected a gain that is finite and at least 0",
        "steps: expected a whole number, got undefined",
        "index: expected 1 numbers, got 2",
        "values: expected 1 numbers, got 2",
        "indices: expected whole numbers",
        "input: expected 1 numbers, got 2",
        "no memory left",
    ]
    assert made["refusals"]["found"] == [0.0]


def test_the_command_of_the_page_prints_the_logits_of_native_code(tmp_path: Path) -> None:
    torch.manual_seed(0)
    SRCClassifier(64, [40], 10, recurrent=True, initial_state="rest").export(tmp_path / "net.srcell")
    steps = np.random.default_rng(0).random((100, 64)) < 0.1
    stream, expected = runtime.load(tmp_path / "net.srcell").stream(), []
    for number, step in enumerate(steps, start=1):
        stream.step(step)
        if number % 20 == 0:
            (logits,) = stream.logits()
            expected.append((number, int(logits.argmax()), float(f"{logits.max():.6g}")))
    lines = "\n".join(" ".join(map(str, step.nonzero()[0])) for step in steps)
    (tmp_path / "steps.txt").write_text(lines)
    for folder in ("build", "docs", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (command,) = re.findall(r"^node [^`]*", (ROOT / "docs" / "howto" / "browser.md").read_text(), re.MULTILINE)
    printed = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"step (\d+): class (\d+), logit (\S+)", printed)
    assert [(int(step), int(best), float(logit)) for step, best, logit in found] == expected


@pytest.mark.parametrize("given", [(), ("srcell.js", "srcell.wasm")])
def test_the_control_loop_without_its_files_prints_its_usage(given: tuple[str, ...]) -> None:
    done = subprocess.run(["node", CONTROL, *given], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "usage: node control.mjs srcell.js srcell.wasm net.srcell < steps\n"


def test_the_files_are_small() -> None:
    files = [path for path in (FOLDER / "_static" / "play").iterdir() if path.suffix != ".srcell"]
    assert {path.name for path in files} >= {"srcell.js", "srcell.wasm", "play.css"}
    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in files) <= MOST_BYTES


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_a_phone_and_the_console_is_silent(page: str, scheme: str, address: str, chromium: Any) -> None:
    with Opened(chromium, f"{address}/play/{page}.html", width=390, scheme=scheme) as opened:
        assert opened.evaluate("document.documentElement.scrollWidth") <= 390
        unnamed = """() => [...document.querySelectorAll(".play button, .play input, .play canvas, .play svg")]
            .filter((x) => !(x.textContent.trim() || x.labels?.length || x.ariaLabel || x.ariaHidden === "true"
                             || x.closest("[role=img], [aria-hidden=true]")))
            .map((x) => x.outerHTML.slice(0, 80))"""
        assert opened.evaluate(unnamed) == []


def draw(page: Any, points: list[tuple[float, float]]) -> None:
    """A stroke on the pad, with the mouse."""
    pad = page.locator(".network-pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opened_as_a_file_says_what_to_do(page: str, chromium: Any) -> None:
    opened = chromium.new_page()
    opened.goto((FOLDER / "play" / f"{page}.html").as_uri())
    assert "python -m http.server" in opened.text_content(".play-status")
    opened.close()


def test_a_drawn_seven_is_classified_with_the_logits_of_native_code(address: str, chromium: Any) -> None:
    with Opened(chromium, f"{address}/play/network.html") as page:
        page.get_by_role("button", name="Clear").click()
        assert page.evaluate("play.result") == []
        draw(page, [(0.25, 0.2), (0.75, 0.2), (0.4, 0.85)])
        shown = page.evaluate("""() => ({ image: [...play.image], seed: play.seed,
            result: play.result.map(({ name, answer }) => ({ name, answer })),
            logits: play.result.map(({ logits }) => [...logits]) })""")
        status = page.locator(".play-status").text_content()
    assert shown["result"] == [{"name": "Float", "answer": 7}, {"name": "Integer", "answer": 7}]
    assert "Float: 7" in status and "Integer: 7" in status
    image = np.array([shown["image"]], np.float32)
    for file, logits in zip(("mnist-100", "integer-44-4"), shown["logits"], strict=True):
        network = runtime.load(FOLDER / "_static" / "play" / f"{file}.srcell")
        expected = network.run(network.encode(image, seed=shown["seed"]))
        assert np.array_equal(np.array([logits], np.float32), expected)


def without_lateral(exported: bytes) -> bytes:
    """A network's file with the bytes of its recurrent weights set to 0."""
    header, tensors = split(exported)
    first, last = header["layers.0.lateral"]["data_offsets"]
    return joined(header, tensors[:first] + bytes(last - first) + tensors[last:])


def test_only_the_network_with_recurrent_weights_remembers_a_symbol(address: str, chromium: Any) -> None:
    play = FOLDER / "_static" / "play"
    lateral = (play / "recall.srcell").read_bytes()
    files = [lateral, without_lateral(lateral), (play / "recall-alone.srcell").read_bytes()]
    for symbol, delay, seed in ((5, 100, 3), (2, 400, 77)):
        with Opened(chromium, f"{address}/play/sequence.html#symbol={symbol}&delay={delay}&seed={seed}") as page:
            shown = page.evaluate("""() => [play.symbol, play.delay, play.seed,
                play.result.map(({ answer, logits }) => [answer, [...logits]])]""")
            picture = page.locator("canvas").first
            before = picture.bounding_box()
            page.get_by_role("button", name="Run").click()
            assert picture.bounding_box() == before
        assert shown[:3] == [symbol, delay, seed]
        image = torch.zeros(1, 1, data.RecallEncoding.INPUTS)
        image[0, 0, symbol] = 1
        events = data.RecallEncoding(delay)(image, torch.tensor([0]), seed)
        for file, (answer, logits) in zip(files, shown[3], strict=True):
            expected = runtime.Network(file).run(events)[0]
            assert np.array_equal(np.array(logits, np.float32), expected) and answer == expected.argmax()
        answers = [answer for answer, _ in shown[3]]
        assert answers[0] == symbol and symbol not in answers[1:]


def test_the_networks_of_a_trial_are_side_by_side_and_fresh_trials_are_counted(address: str, chromium: Any) -> None:
    with Opened(chromium, f"{address}/play/sequence.html", height=800) as page:
        tops = page.evaluate("""() => [...document.querySelectorAll(".sequence-columns section")].map((section) =>
            [...section.querySelectorAll("canvas")].map((canvas) => Math.round(canvas.getBoundingClientRect().y)))""")
        assert len(tops) == 3 and all(column == tops[0] for column in tops)
        button = page.get_by_role("button", name="Try 100 times")
        assert button.bounding_box()["y"] < 700
        button.click()
        said = page.get_by_text("Right in 100 fresh trials with a delay of 100 steps: with recurrent weights 100 ")
        said.wait_for()


def spoken(seed: int, rate: int) -> np.ndarray:
    """Two "words" with silence and a little noise around them: voices with two resonances each, at `rate`."""
    draw, parts = np.random.default_rng(seed), [np.zeros(rate)]
    for pitch, formants in ((110, (700, 1200)), (150, (300, 2200))):
        t = np.arange(rate // 2) / rate
        harmonics = pitch * np.arange(1, 25)
        height = sum(1 / (1 + ((harmonics - formant) / 90) ** 2) for formant in formants)
        voice = (np.sin(2 * np.pi * np.outer(t, harmonics)) * height).sum(1) * np.sin(np.pi * t / t[-1]) ** 0.5
        parts += [0.3 * voice / np.abs(voice).max(), np.zeros(rate)]
    made = np.concatenate(parts)
    return (made + 1e-3 * draw.standard_normal(len(made))).astype(np.float32)


# What the page heard after the words with which it opens.
OPENING = 3
HEARD = """() => play.result.slice(3).map(({ columns, logits, answer, spikes }) => ({ answer, spikes,
    logits: [...logits], samples: columns.flatMap(({ samples }) => [...samples]),
    active: columns.map(({ active }) => active) }))"""


def agrees_with_native_code(word: dict[str, Any], file: Path | None = None) -> bool:
    """Whether a word's spikes of each step, logits and answer are those of native code for the same samples."""
    network = runtime.load(file or FOLDER / "_static" / "play" / "digits.srcell")
    samples, stream = torch.tensor(word["samples"], dtype=torch.float32), network.stream()
    steps = stream.hear(samples)
    (logits,) = stream.logits()
    settings = dict(network.encoder or {})
    assert settings.pop("name") == "SoundEncoding" and steps == len(word["active"]) > 30
    (spikes,) = network.spikes(data.SoundEncoding(**settings)(samples[None]))
    found = np.zeros((steps, 1, spikes.shape[2]), np.float32)
    for step, active in enumerate(word["active"]):
        for neuron, spike in active:
            found[step, 0, int(neuron)] = spike
    assert np.count_nonzero(spikes) == word["spikes"] > 100
    assert np.array_equal(np.array(word["logits"], np.float32), logits)
    return np.array_equal(found, spikes) and word["answer"] == logits.argmax()


def with_microphone(chromium: Any, sound: np.ndarray, folder: Path) -> Any:
    """A browser whose microphone hears the sound, of 48 kHz, again and again."""
    wavfile.write(folder / "microphone.wav", 48_000, (32767 * sound).astype(np.int16))
    given = f"--use-file-for-fake-audio-capture={folder / 'microphone.wav'}"
    flags = [*FLAGS, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", given]
    return chromium.browser_type.launch(executable_path=browser_program(), args=flags)


def test_the_microphone_is_heard_with_the_spikes_of_native_code(address: str, chromium: Any, tmp_path: Path) -> None:
    browser = with_microphone(chromium, spoken(0, 48_000), tmp_path)
    with Opened(browser, f"{address}/play/sound.html") as page:
        page.evaluate("""() => {
            const { mediaDevices } = navigator, open = mediaDevices.getUserMedia.bind(mediaDevices);
            mediaDevices.getUserMedia = async (...wanted) => (window.media = await open(...wanted));
        }""")
        page.get_by_role("button", name="Listen").click()
        page.wait_for_function("play.result.length >= 6")
        assert page.evaluate("media.getTracks().map((track) => track.readyState)") == ["live"]
        page.get_by_role("button", name="Stop").click()
        assert page.evaluate("media.getTracks().map((track) => track.readyState)") == ["ended"]
        words = page.evaluate(HEARD)
        heard = page.evaluate("play.listener.heard")
        page.wait_for_timeout(200)
        assert page.evaluate("play.listener.heard") == heard
        assert len(page.locator(".sound-history li").all()) == len(words) + OPENING
    browser.close()
    assert all(agrees_with_native_code(word) for word in words)


def test_a_page_without_a_microphone_says_so(address: str, chromium: Any) -> None:
    with Opened(chromium, f"{address}/play/sound.html") as page:
        page.get_by_role("button", name="Listen").click()
        page.get_by_text("The microphone cannot be used").wait_for()
        assert page.get_by_role("button", name="Listen").is_visible()


def test_a_file_at_the_rate_of_the_network_is_heard_as_it_is(address: str, chromium: Any, tmp_path: Path) -> None:
    sound = spoken(1, 8000)
    wavfile.write(tmp_path / "words.wav", 8000, sound)
    (tmp_path / "text.wav").write_text("no sound")
    with Opened(chromium, f"{address}/play/sound.html") as page:
        page.locator("input[type=file]").set_input_files(tmp_path / "words.wav")
        page.wait_for_function("play.result.length === 5")
        words = page.evaluate(HEARD)
        page.locator("input[type=file]").set_input_files(tmp_path / "text.wav")
        page.get_by_text("text.wav: the browser cannot read this file").wait_for()
    assert sound.dtype == np.float32
    for word in words:
        assert np.array(word["samples"], np.float32).tobytes() in sound.tobytes()
        assert agrees_with_native_code(word)


def test_a_file_gives_the_samples_of_the_microphone(address: str, chromium: Any, tmp_path: Path) -> None:
    """At any rate: the page's resampler changes it, and not the browser, which only decodes."""
    script = """async (bytes) => {
        const { Resampler, samplesOf } = await import("/_static/play/sound-audio.js");
        const { buffer } = Uint8Array.from(bytes);
        const found = await samplesOf(buffer.slice(0), 8000), sound = new Float32Array(buffer.slice(58));
        return [[...found], [...new Resampler(22050, 8000).take(sound)]];
    }"""
    wavfile.write(tmp_path / "words.wav", 22_050, spoken(1, 22_050))
    with Opened(chromium, f"{address}/play/sound.html") as page:
        found, expected = page.evaluate(script, [*(tmp_path / "words.wav").read_bytes()])
    assert len(found) > 1000
    assert found[: len(expected)] == expected


def test_the_noise_of_a_file_is_no_word(address: str, chromium: Any) -> None:
    """Though silence comes before it: its level is measured first."""
    noise = spoken(1, 8000) + 0.01 * np.random.default_rng(3).standard_normal(len(spoken(1, 8000)))
    script = """(samples) => {
        const { listener } = play, sound = Float32Array.from(samples), silence = new Float32Array(3200);
        const heard = (noise) => {
            listener.clear(0, noise);
            const ended = [silence, sound, silence].map((part) => listener.hear(part)).reduce((a, b) => a + b);
            return play.result.slice(-ended).map(({ columns }) => columns.length);
        };
        return [heard(listener.noiseOf(sound)), heard(), listener.noiseOf(new Float32Array(10))];
    }"""
    with Opened(chromium, f"{address}/play/sound.html") as page:
        measured, unmeasured, empty = page.evaluate(script, noise.tolist())
    assert len(measured) == 2 and max(measured) < 110  # 0.25 + 0.5 + 0.3 s
    assert max(unmeasured) > 150
    assert empty == -90


def test_an_answer_of_low_probability_has_a_question_mark(address: str, chromium: Any) -> None:
    script = """() => {
        const { page, result: words } = play, { probabilities } = words.at(-1);
        return [0.95, 0.85].map((p) => {
            words.push({ ...words.at(-1), answer: 7, probabilities: probabilities.map((_, c) => c === 7 ? p : 0) });
            page.note();
            page.draw();
            return [".sound-digit", ".sound-words", ".play-status", ".sound-history li"]
                .map((name) => document.querySelector(name).textContent);
        });
    }"""
    with Opened(chromium, f"{address}/play/sound.html") as page:
        assert page.locator(".sound-history li").all_text_contents() == ["7 0.98", "2 0.94", "4 0.98"]
        sure, unsure = page.evaluate(script)
    assert sure == ["7", "seven, p = 0.95", "The answer is seven, p = 0.95.", "7 0.95"]
    assert unsure == ["7?", "seven, p = 0.85, not sure", "Not sure: seven, p = 0.85.", "7? 0.85"]


def test_the_network_recognises_the_ten_digits_of_the_voice(address: str, chromium: Any) -> None:
    script = """async () => {
        const { speak } = await import("/_static/play/sound-voice.js"), silence = new Float32Array(4000);
        return Array.from({ length: 10 }, (_, digit) => {
            play.listener.clear();
            for (const part of [silence, speak(digit, 8000), silence]) play.listener.hear(part);
            return play.result.at(-1).answer;
        });
    }"""
    with Opened(chromium, f"{address}/play/sound.html") as page:
        assert page.evaluate(script) == [*range(10)]
        page.get_by_role("button", name="Let the voice say three").click()
        page.get_by_text("The answer is three").wait_for()
        assert page.locator(".sound-digit").text_content() == "3"


# The page's voice says digits at other speeds, as another voice.
SAY = """async ([digits, rate]) => {
    const { speak } = await import("/_static/play/sound-voice.js"), silence = new Float32Array(4000);
    for (const digit of digits) {
        play.listener.clear();
        for (const part of [silence, speak(digit, rate), silence]) play.page.hear(part);
    }
}"""
SLOW = 10_400  # samples a second, heard as 8000
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
BATCH = (
    ("offsets", np.int64),
    ("indices", np.int32),
    ("values", np.float32),
    ("labels", np.int64),
    ("lengths", np.int64),
)
LEARNS = 120_000  # milliseconds in which a lesson must end


# How many sounds get the answer "no digit".
NO_DIGITS = """(sounds) => sounds.filter((sound) => {
    play.listener.clear();
    for (const part of [new Float32Array(4000), Float32Array.from(sound), new Float32Array(4000)])
        play.listener.hear(part);
    return play.result.at(-1).answer === 10;
}).length"""


def button_of(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def asked_for(page: Any) -> str:
    return str(page.locator(".sound-say strong").text_content()).removeprefix("Say: ")


def answers_to(page: Any, digits: list[int], rate: int = SLOW) -> list[dict[str, Any]]:
    """What the page answers to the voice, outside a lesson."""
    page.evaluate(SAY, [digits, rate])
    return list(page.evaluate(HEARD)[-len(digits) :])


def teach(page: Any, rate: int) -> None:
    button_of(page, "Teach it your voice").click()
    button_of(page, "Begin").click()
    page.evaluate(SAY, [[*range(10)], rate])
    page.get_by_text("Learnt after 30 passes").wait_for(timeout=LEARNS)


def test_the_page_learns_a_voice_and_forgets_it_and_saves_it(address: str, chromium: Any, tmp_path: Path) -> None:
    digits, file = [*range(10)], tmp_path / "mine.srcell"
    noises = (0.05 * np.random.default_rng(1).standard_normal((20, 4000))).tolist()
    with Opened(chromium, f"{address}/play/sound.html") as page:
        before = answers_to(page, digits)
        teach(page, SLOW)
        (said,) = re.findall(r"(\d+) of 10 recordings right. Before learning: (\d+)", page.text_content(".sound-say"))
        assert int(said[0]) > int(said[1])
        after = answers_to(page, digits)
        assert page.evaluate(NO_DIGITS, noises) >= 16
        with page.expect_download() as download:
            button_of(page, "Save the network").click()
        assert download.value.suggested_filename == file.name
        download.value.save_as(file)
        button_of(page, "Try 10 words").click()
        for _ in digits:
            page.evaluate(SAY, [[DIGITS.index(asked_for(page))], SLOW])
        tried = page.text_content(".sound-say")
        button_of(page, "Back to the network before").click()
        assert answers_to(page, digits) == before
        assert button_of(page, "Try 10 words").is_hidden()
        with page.expect_file_chooser() as chooser:
            button_of(page, "Open a network").click()
        chooser.value.set_files(file)
        page.get_by_text("The page hears with the network of mine.srcell.").wait_for()
        assert answers_to(page, digits) == after
    right = [sum(word["answer"] == digit for digit, word in enumerate(words)) for words in (before, after)]
    assert right[1] > right[0] + 2
    assert tried == f"Right of 10 words: {right[0]} before, {right[1]} after."
    assert all(agrees_with_native_code(word, file) for word in after)


def test_a_lesson_hears_the_microphone(address: str, chromium: Any, tmp_path: Path) -> None:
    script = """async () => {
        const { speak } = await import("/_static/play/sound-voice.js");
        return Array.from({ length: 10 }, (_, digit) => [...speak(digit, 8000)]);
    }"""
    with Opened(chromium, f"{address}/play/sound.html") as page:
        parts = [np.pad(np.array(word), (1600, 4800)) for word in page.evaluate(script)]
    sound = signal.resample_poly(np.concatenate([np.zeros(8000), *parts]), 6, 1)
    draw = np.random.default_rng(0)
    browser = with_microphone(chromium, sound + 1e-4 * draw.standard_normal(len(sound)), tmp_path)
    with Opened(browser, f"{address}/play/sound.html") as page:
        button_of(page, "Teach it your voice").click()
        button_of(page, "Begin").click()
        page.get_by_text("Learning from 10 recordings.").wait_for(timeout=LEARNS)
        assert page.evaluate("play.page.teacher.lesson.before") >= 7
        button_of(page, "Try 10 words").wait_for(timeout=LEARNS)
        assert button_of(page, "Stop").count() == 1  # the page still listens
        assert re.search(r"(10|9) of 10 recordings right", page.text_content(".sound-say"))
    browser.close()


def test_a_lesson_has_the_bits_of_native_code(address: str, chromium: Any, tmp_path: Path) -> None:
    script = """async (classes) => {
        const { batches, learning, WORDS } = await import("/_static/play/sound-learn.js");
        const { draws } = await import("/_static/play/sound-voice.js"), { listener, runtime, page } = play;
        const sounds = play.result.map(({ columns }) => columns.flatMap(({ samples }) => [...samples]));
        const samples = sounds.map((sound, label) =>
            ({ label, word: true, currents: listener.currentsOf(Float32Array.from(sound)) }));
        const settings = { ...WORDS, passes: 2, batch: 2, learner: { ...WORDS.learner, classes } }, draw = draws();
        const made = [1, 2].flatMap(() => [...batches(samples, 32, settings, draw)]);
        return {
            bytes: [...[...learning(runtime, page.teacher.bytes, samples, settings)].at(-1).bytes],
            heard: samples.map(({ currents }) => [...currents]),
            sounds,
            batches: made.map(({ events, labels, lengths }) => ({ labels, lengths, steps: events.steps,
                offsets: events.offsets, indices: [...events.indices], values: [...events.values] })),
        };
    }"""
    with Opened(chromium, f"{address}/play/sound.html") as page:
        made = page.evaluate(script, WORDS[:3])
    network = runtime.load(FOLDER / "_static" / "play" / "digits.srcell")
    settings = dict(network.encoder or {})
    settings.pop("name")
    for sound, currents in zip(made["sounds"], made["heard"], strict=True):
        expected = data.SoundEncoding(**settings)(torch.tensor([sound], dtype=torch.float32)).to_dense()
        assert np.array_equal(np.array(currents, np.float32), expected.flatten().numpy())
    learner = network.learner(learning_rate=3e-3, classes=WORDS[:3])
    for batch in made["batches"]:
        given = [np.array(batch[name], kind) for name, kind in BATCH]
        offsets, indices, values = map(torch.from_numpy, given[:3])
        events = EventBatch(offsets, indices, values, shape=(batch["steps"], len(given[3]), 32))
        learner.step(events, given[3], given[4])
    learner.network().save(tmp_path / "native.srcell")
    assert len(made["batches"]) == 4
    assert (tmp_path / "native.srcell").read_bytes() == bytes(made["bytes"])


def test_own_words_are_taught_with_the_keyboard_alone(address: str, chromium: Any) -> None:
    focused = "document.activeElement.textContent"
    with Opened(chromium, f"{address}/play/sound.html") as page:
        page.get_by_role("button", name="Open a sound file").focus()
        for _ in range(10 + 2):  # the voice's buttons, and "Teach it your voice"
            page.keyboard.press("Tab")
        assert page.evaluate(focused) == "Words of your own"
        page.keyboard.press("Enter")
        page.keyboard.type("tea")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.validationMessage").startswith("Give 2 to 10 words")
        page.keyboard.type(", a long coffee")
        page.keyboard.press("Enter")
        assert page.evaluate(focused) == "Skip" and asked_for(page) == "tea"
        page.evaluate(SAY, [[1, 3] * 3, SLOW])
        page.get_by_text("Learnt after 20 passes: 6 of 6 recordings right").wait_for(timeout=LEARNS)
        assert page.evaluate(focused) == "Try 10 words"
        page.evaluate(SAY, [[3], SLOW])
        assert str(page.text_content(".sound-digit")).startswith("a long coffee")
        assert page.evaluate("[...play.result.at(-1).probabilities].length") == 2
        page.keyboard.press("Enter")
        for _ in range(10):
            page.evaluate(SAY, [[{"tea": 1, "a long coffee": 3}[asked_for(page)]], SLOW])
        assert page.text_content(".sound-say") == "Right of 10 words: 10."
        assert page.evaluate(focused) == "Try 10 words"


def test_words_of_a_lesson_are_skipped_and_undone(address: str, chromium: Any) -> None:
    with Opened(chromium, f"{address}/play/sound.html") as page:
        button_of(page, "Teach it your voice").click()
        button_of(page, "Begin").click()
        assert asked_for(page) == "zero" and button_of(page, "Undo the last word").is_hidden()
        page.locator(".sound-say").get_by_text("The microphone cannot be used").wait_for()
        page.evaluate(SAY, [[0], 8000])
        button_of(page, "Skip").click()
        page.evaluate(SAY, [[5], 8000])
        assert asked_for(page) == "three"
        taken = page.locator("[aria-label^='Your words'] li")
        assert [text.split(",")[0] for text in taken.all_text_contents()] == ["zero heard as zero", "two heard as five"]
        button_of(page, "Undo the last word").click()
        assert asked_for(page) == "two" and taken.count() == 1
        button_of(page, "Start again").click()
        assert asked_for(page) == "zero" and taken.count() == 0
        for _ in range(10):
            button_of(page, "Skip").click()
        assert button_of(page, "Begin").is_visible()  # nothing to learn from
        button_of(page, "Begin").click()
        button_of(page, "Stop").click()
        button_of(page, "Teach it your voice").click()
        assert page.locator(".sound-panel").is_hidden()


def test_learning_stops_and_keeps_what_it_learnt(address: str, chromium: Any) -> None:
    with Opened(chromium, f"{address}/play/sound.html") as page:
        button_of(page, "Teach it your voice").click()
        button_of(page, "Begin").click()
        page.evaluate(SAY, [[*range(10)], SLOW])
        page.get_by_text("Learning from 10 recordings.").wait_for()
        page.wait_for_function("play.page.teacher.states.length >= 1", timeout=LEARNS)
        button_of(page, "Stop").click()
        assert str(page.text_content(".sound-say")).startswith("Stopped after ")
        button_of(page, "Back to the network before").click()


def test_a_file_that_is_no_network_for_the_page_is_refused(address: str, chromium: Any, tmp_path: Path) -> None:
    (tmp_path / "text.srcell").write_text("no network")
    (tmp_path / "other.srcell").write_bytes(file_of(CURRENTS))
    header, tensors = split((FOLDER / "_static" / "play" / "digits.srcell").read_bytes())
    header["__metadata__"]["classes"] = "no JSON"
    (tmp_path / "names.srcell").write_bytes(joined(header, tensors))
    with Opened(chromium, f"{address}/play/sound.html") as page:
        for file, reason in (
            ("text", ""),
            ("other", "expected a network with this page's cochlea"),
            ("names", "classes: expected '[' at byte 0"),
        ):
            with page.expect_file_chooser() as chooser:
                button_of(page, "Open a network").click()
            chooser.value.set_files(tmp_path / f"{file}.srcell")
            page.get_by_text(f"{file}.srcell cannot be used: {reason}").wait_for()
        page.evaluate(SAY, [[4], 8000])
        assert page.text_content(".sound-digit") == "4"


def test_a_network_that_learnt_elsewhere_is_opened_with_its_names(address: str, chromium: Any, tmp_path: Path) -> None:
    learner = runtime.load(FOLDER / "_static" / "play" / "digits.srcell").learner(classes=WORDS)
    learner.step(np.ones((50, 4, 32), np.float32), np.arange(4))
    learner.network().save(tmp_path / "words.srcell")
    with Opened(chromium, f"{address}/play/sound.html") as page:
        with page.expect_file_chooser() as chooser:
            button_of(page, "Open a network").click()
        chooser.value.set_files(tmp_path / "words.srcell")
        page.get_by_text(f"It knows {', '.join(WORDS)}.").wait_for()
        (word,) = answers_to(page, [4])
        assert str(page.text_content(".sound-words")).split(", p")[0] == WORDS[word["answer"]]
    assert agrees_with_native_code(word, tmp_path / "words.srcell")


def test_a_network_that_comes_during_a_word_hears_it_from_its_beginning(address: str, chromium: Any) -> None:
    script = """async () => {
        const { speak } = await import("/_static/play/sound-voice.js"), { listener, page } = play;
        const silence = new Float32Array(4000), word = speak(4, 8000);
        return [false, true].map((comes) => {
            listener.clear();
            for (const part of [silence, word.slice(0, 2000)]) listener.hear(part);
            const lasts = listener.word.columns.length;
            if (comes) page.use(page.teacher.bytes);
            for (const part of [word.slice(2000), silence]) listener.hear(part);
            return [lasts, ...play.result.at(-1).logits];
        });
    }"""
    with Opened(chromium, f"{address}/play/sound.html") as page:
        alone, changed = page.evaluate(script)
    assert alone == changed and alone[0] > 30


def test_steady_noise_begins_no_word_and_louder_noise_only_one(address: str, chromium: Any) -> None:
    noise = 0.003 * np.random.default_rng(2).standard_normal(80_000)
    noise[32_000:] *= 10  # 20 dB
    script = """(noise) => {
        play.listener.clear(0.5);
        const ended = (from, to) => play.listener.hear(Float32Array.from(noise.slice(from, to)));
        return [ended(0, 32000), ended(32000, 80000), play.listener.word === null];
    }"""
    with Opened(chromium, f"{address}/play/sound.html") as page:
        assert page.evaluate(script, noise.tolist()) == [0, 1, True]


@pytest.mark.parametrize("rate", [48_000, 44_100, 16_000])
def test_resampling_keeps_what_the_network_hears_and_nothing_above(rate: int, address: str, chromium: Any) -> None:
    script = """async (rate) => {
        const { Resampler } = await import("/_static/play/sound-audio.js");
        const sine = (frequency) => (_, k) => Math.sin(2 * Math.PI * frequency * k / rate);
        const toned = (frequency) => Float32Array.from({ length: rate }, sine(frequency));
        const made = (samples, size) => {
            const resampler = new Resampler(rate, 8000), parts = [];
            for (let at = 0; at < rate; at += size) parts.push(...resampler.take(samples.subarray(at, at + size)));
            return parts;
        };
        return { low: made(toned(1000), rate), chunks: made(toned(1000), 333), high: made(toned(5000), 1024) };
    }"""
    with Opened(chromium, f"{address}/play/sound.html") as page:
        made = page.evaluate(script, rate)
    assert made["low"] == made["chunks"]
    middle = slice(200, 7800)
    assert 7900 < len(made["low"]) <= 8000
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)[middle]
    assert np.abs(np.array(made["low"])[middle] - tone).max() < 1e-3  # the windows' ripple of the pass band
    assert np.abs(np.array(made["high"])[middle]).max() < 3e-3  # 50 dB


def test_what_the_page_of_sounds_loads_is_small(address: str, chromium: Any) -> None:
    with Opened(chromium, f"{address}/play/sound.html") as page:
        loaded = page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name)")
    files = {FOLDER / url.removeprefix(f"{address}/").partition("?")[0] for url in loaded if "/_static/play/" in url}
    assert {file.name for file in files} >= {
        "srcell.wasm",
        "digits.srcell",
        "sound.js",
        "sound-listener.js",
        "sound.css",
    }
    later = ("sound-worklet.js", "sound-learn-worker.js")
    files |= {FOLDER / "play" / "sound.html", *(FOLDER / "_static" / "play" / name for name in later)}
    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in files) <= MOST_BYTES_OF_SOUND


def native_trace(shown: dict[str, Any]) -> np.ndarray:
    """i, h, hs and q after each step (4, T), computed by ``srcell.src``; q is 0 without resonance."""
    cell = {name: float(value) for name, value in shown["parameters"].items()}
    bias = torch.tensor([cell.pop("bias")])
    given, found = [*torch.tensor(shown["initial"], dtype=torch.float32).view(3, 1, 1)], []
    zero = torch.zeros(1, 1)
    state = ResonantState(*given, zero) if cell["omega"] else SRCState(*given)
    for current in torch.tensor(shown["current"], dtype=torch.float32).view(-1, 1, 1, 1):
        _, state = srcell.src(current, bias, state, **cell)
        found.append(torch.cat([*state, zero][:4]).flatten())
    return torch.stack(found, 1).numpy()


def shown_trace(page: Any) -> tuple[dict[str, Any], np.ndarray]:
    """The settings of the simulation on the neuron's page, and its i, h, hs and q (4, T)."""
    shown = page.evaluate("""() => ({ parameters: play.state.parameters, current: play.trace.current,
        initial: [...play.trace.initial], values: ["i", "h", "hs", "q"].map((name) => [...play.trace[name]]) })""")
    return shown, np.array(shown["values"], np.float32)


def spikes_of(h: np.ndarray) -> list[int]:
    """Steps at which h crosses 0.5 upwards."""
    high = h > 0.5
    return [int(t) for t in np.flatnonzero(high & ~np.roll(high, 1))]


def test_presets_and_sliders_give_the_states_of_native_code(address: str, chromium: Any) -> None:
    spikes = {}
    with Opened(chromium, f"{address}/play/neuron.html") as page:
        for preset in page.locator(".neuron-presets button").all():
            preset.click()
            shown, values = shown_trace(page)
            assert np.array_equal(values, native_trace(shown)), preset.text_content()
            spikes[preset.text_content()] = spikes_of(values[1])
        for preset in ("Resonance", "Off beat"):
            page.get_by_role("button", name=preset).click()
            page.get_by_role("slider", name="Resonance").press("Home")
            shown, values = shown_trace(page)
            assert shown["parameters"]["omega"] == 0 and spikes_of(values[1]) == []
        page.get_by_role("button", name="Steady firing").click()
        for label, keys in (("Bias", 7), ("Integrator", -12), ("Silent gate", -5), ("Steady current", 40)):
            slider = page.get_by_role("slider", name=label)
            for _ in range(abs(keys)):
                slider.press("ArrowRight" if keys > 0 else "ArrowLeft")
        shown, values = shown_trace(page)
    assert shown["parameters"]["bias"] == -5.3 and shown["parameters"]["alpha"] == 0.78
    assert np.array_equal(values, native_trace(shown))
    assert spikes_of(values[1]) != spikes["Steady firing"]
    # The claims in the presets' descriptions.
    assert spikes["At rest"] == [] and spikes["One spike"] == [20] and spikes["Refractory"] == [20, 70]
    assert set(np.diff(spikes["Steady firing"])[1:]) == {24} and set(np.diff(spikes["Spontaneous"])) == {22, 24}
    assert spikes["Resonance"][0] == 58 and len(spikes["Resonance"]) == 6 and spikes["Off beat"] == []
    assert set(spikes["Silent or firing"]) <= {*range(40, 160)} and len(spikes["Silent or firing"]) > 3


def test_the_plane_of_the_integrator_is_shown_only_with_resonance(address: str, chromium: Any) -> None:
    """And the plane of the states is seen without scrolling."""
    with Opened(chromium, f"{address}/play/neuron.html", height=800) as page:
        turning = page.get_by_text("In the plane of its integrator", exact=True)
        assert turning.is_hidden()
        box = page.get_by_label("The plane of h and hs").bounding_box()
        assert box["y"] + box["height"] <= 800
        page.get_by_role("slider", name="Resonance").press("ArrowRight")
        assert turning.is_visible()
        assert "M" in page.locator(".neuron-orbit").last.get_attribute("d")
    with Opened(chromium, f"{address}/play/neuron.html#omega=0.52") as page:
        assert page.get_by_text("In the plane of its integrator", exact=True).is_visible()


def test_a_link_keeps_only_the_valid_settings(address: str, chromium: Any) -> None:
    with Opened(chromium, f"{address}/play/neuron.html#bias=-4.2&alpha=7&r=NaN&pulses=30:4,999:1,5:x") as page:
        state = page.evaluate("play.state")
    assert state["parameters"] == {
        "bias": -4.2,
        "alpha": 0.9,
        "omega": 0,
        "rho": 3,
        "r": 2,
        "rs": -7,
        "zs_hyp": 0.9,
        "zs_dep": 0,
    }
    assert state["pulses"] == [[30, 4]]
