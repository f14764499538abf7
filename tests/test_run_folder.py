"""The folder of a run: one writer and any number of readers, the place of its data, and loading its network."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

import srcell
from srcell import data
from srcell._shared.files import new_folder, partial_name
from srcell.training import RunOptions, TrainedRun, TrainingConfig, build_model, evaluate_run, load_data, resume, train
from srcell.training.checkpoint import read_checkpoint, write_checkpoint
from srcell.training.run_folder import FILES, LOCK, RunData, RunFolder
from support.outputs import tree
from support.runs import TINY, assert_equal_weights


@pytest.fixture
def begun(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", TINY)


# One writer, any number of readers


def test_a_folder_in_use_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(FileExistsError, match="not an empty folder"):
            train(TINY, path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_has_one_writer_at_a_time(begun: RunFolder) -> None:
    second = RunFolder.open(begun.path)
    for write in (second.lock, partial(resume, begun.path)):
        with pytest.raises(BlockingIOError, match=r"run: another process is training there"):
            write()
    begun.close()
    second.lock()
    with pytest.raises(BlockingIOError):
        begun.lock()


def test_readers_touch_nothing(begun: RunFolder) -> None:
    for name in (partial_name("checkpoint.safetensors"), "download.bin.partial"):
        (begun.path / name).write_text("half")
    before = tree(begun.path)
    for _ in ("while the writer holds the lock", "afterwards"):
        folder = RunFolder.open(begun.path)
        assert folder.read_checkpoint() is None
        for read in (folder.load_model, partial(evaluate_run, folder), partial(srcell.load, begun.path)):
            with pytest.raises(FileNotFoundError, match="the run has not ended"):
                read()
        assert tree(begun.path) == before
        begun.close()
    (begun.path / "config.json").rename(begun.path / "other.json")
    before = tree(begun.path)
    with pytest.raises(FileNotFoundError, match=r"found no config\.json"):
        RunFolder.open(begun.path)
    assert tree(begun.path) == before


def test_a_writer_deletes_only_the_partial_files_of_a_killed_writer(begun: RunFolder) -> None:
    begun.close()
    ours = [partial_name(name) for name in FILES]
    theirs = ["download.bin.partial", partial_name("notes.txt"), "config.json.partial", "config.json.x.partial"]
    for name in ours + theirs:
        (begun.path / name).write_text("half")
    RunFolder.open(begun.path).lock()
    assert sorted(path.name for path in begun.path.iterdir()) == sorted([LOCK, "config.json", *theirs])


def test_a_folder_with_a_lock_and_a_partial_configuration_is_empty(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    (tmp_path / partial_name("config.json")).touch()
    RunFolder.create(tmp_path, TINY)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, "config.json"]
    with pytest.raises(FileExistsError, match="not an empty folder"):
        RunFolder.create(tmp_path, TINY)


def create_at_once(path: Path, seed: int, barrier: Any, made: Any) -> None:
    config = replace(TINY, seed=seed)
    barrier.wait(60)
    try:
        RunFolder.create(path, config)
        made.put(seed)
    except (FileExistsError, BlockingIOError):
        made.put(None)
    barrier.wait(60)  # the process that created the folder stays its writer until all have tried


def test_config_json_has_the_latest_data_of_the_run(begun: RunFolder) -> None:
    for folder in ("here", "there"):
        begun.set_data(RunData(folder, (1, 8, 8), 10))
        assert RunFolder.open(begun.path).data == begun.data == RunData(folder, (1, 8, 8), 10)


def test_create_is_refused_where_a_run_has_just_begun(begun: RunFolder) -> None:
    """Two identical commands reach a run at the same time."""
    with pytest.raises(BlockingIOError, match="another process is training there"):
        RunFolder.create(begun.path, TINY)
    begun.close()
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        RunFolder.create(begun.path, TINY)


def test_only_one_of_several_processes_creates_a_folder(tmp_path: Path) -> None:
    context = get_context("fork")
    for k in range(10):
        barrier, made = context.Barrier(3), context.SimpleQueue()
        path = tmp_path / str(k)
        makers = [context.Process(target=create_at_once, args=(path, seed, barrier, made)) for seed in range(3)]
        for maker in makers:
            maker.start()
        winners = {made.get() for _ in makers} - {None}
        for maker in makers:
            maker.join(60)
            assert maker.exitcode == 0
        assert winners == {RunFolder.open(path).config.seed}


def test_two_new_folders_of_one_name_get_different_paths(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "digits-1"
    with new_folder(path) as first, new_folder(path) as second:
        assert first == path and second == path.with_name("digits-1-2")
        RunFolder.create(second, TINY)
    assert not first.exists() and (second / "config.json").exists()
    with new_folder(tmp_path / "other" / "run"):
        pass
    assert not (tmp_path / "other").exists()


# The place of the data


@pytest.mark.landing
def test_a_run_knows_where_its_data_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_in: list[Path] = []
    digits = data.load("digits")

    def load(name: str, root: Path, **_: object) -> data.Dataset:
        looked_in.append(root)
        return digits

    monkeypatch.setattr(data, "load", load)
    out, config = tmp_path / "run", replace(TINY, hidden_sizes=(), epochs=1, steps=5)
    train(config, out, options=RunOptions(data="my data"))
    assert RunFolder.open(out).data == RunData("my data", (1, 8, 8), 10)
    resume(out)
    evaluate_run(RunFolder.open(out))
    resume(out, options=RunOptions(data=tmp_path))
    evaluate_run(RunFolder.open(out))
    record = json.loads((out / "config.json").read_text())
    del record["data"]
    (out / "config.json").write_text(json.dumps(record))
    evaluate_run(RunFolder.open(out))
    resume(out)
    own, moved = Path("my data"), tmp_path
    assert looked_in == [own, own, own, moved, moved, Path("data"), Path("data")]
    assert RunFolder.open(out).data == RunData("data", (1, 8, 8), 10)


def test_missing_data_raise_an_error_that_names_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for options, root in ((RunOptions(), "data"), (RunOptions(data="a b"), "a b")):
        with pytest.raises(FileNotFoundError) as error:
            load_data(TrainingConfig(dataset="mnist"), options)
        assert f"no MNIST in {root}" in str(error.value) and str(tmp_path / root) in str(error.value)


DATA = {"folder": "data", "input_shape": [1, 8, 8], "num_classes": 10}


@pytest.mark.parametrize(
    "record",
    [
        *(DATA | change for change in ({"input_shape": [1, 8]}, {"input_shape": [1, 8, 0]}, {"num_classes": True})),
        DATA | {"folder": 3},
        {"folder": "data", "num_classes": 10},
        [1],
        None,
    ],
)
def test_an_invalid_record_of_the_data_is_refused(record: object, begun: RunFolder) -> None:
    path = begun.path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"data": DATA}))
    assert RunFolder.open(begun.path).data == RunData("data", (1, 8, 8), 10)
    path.write_text(json.dumps(config | {"data": record}))
    with pytest.raises(ValueError, match=r"config\.json: not the configuration of a run"):
        RunFolder.open(begun.path)


# Loading the network


def test_a_loaded_network_is_the_trained_one(run: TrainedRun, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "load", None)  # would raise if it were called
    net = srcell.load(out)
    assert not net.training and net.config == TINY and next(net.parameters()).device.type == "cpu"
    assert_equal_weights(net, run.model)
    images = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = srcell.rate_encode(images, TINY.steps, prefix=TINY.prefix, gain=TINY.gain, seed=0)
    assert net.encoder is not None and net.encoder(images) == expected
    other = srcell.rate_encode(images, TINY.steps, prefix=TINY.prefix, gain=TINY.gain, seed=7, index=[4, 5, 6])
    assert net.encoder(images, torch.tensor([4, 5, 6]), seed=7) == other
    assert torch.equal(net(expected), run.model(expected))
    _, record = read_checkpoint(out / "model.safetensors")
    assert (record["input_shape"], record["num_classes"]) == ([1, 8, 8], 10)
    with pytest.raises(ValueError, match=r"^device: expected one that is here \(cpu.*\), got 'nowhere'"):
        srcell.load(out, device="nowhere")


def test_a_run_that_is_resumed_says_that_its_model_was_damaged(tmp_path: Path) -> None:
    """Regression: it said that the run was at its end, and nothing of the file."""
    run = train(TINY, tmp_path)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:500])
    with pytest.raises(ValueError, match=r"model\.safetensors: corrupt or truncated"):
        srcell.load(tmp_path)
    with pytest.warns(UserWarning, match=r"model\.safetensors: corrupt or truncated \(.*\): it is written anew"):
        again = resume(tmp_path)
    assert path.read_bytes() == content
    assert_equal_weights(again.model, run.model)


def test_a_folder_that_does_not_record_its_data_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"training": asdict(TINY), "environment": {}}))
    write_checkpoint(tmp_path / "model.safetensors", build_model(TINY, (1, 8, 8), 10).state_dict(), {})
    with pytest.raises(ValueError, match=r"expected the sizes of the run's data in its config.json, found none$"):
        srcell.load(tmp_path)
