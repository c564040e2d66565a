"""recipes/launch/*.yaml: what accelerate makes of them, and those that a processor can run, run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from accelerate.commands import launch
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env, prepare_simple_launcher_cmd_env
from corpora import write_corpus
from free_ports import free_port
from run_folders import only_run
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from hf_nmt import runs

ROOT = Path(__file__).parents[2]
FILES = {path.stem: path for path in sorted((ROOT / "recipes" / "launch").glob("*.yaml"))}
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
ACCELERATE = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]


def prepared(name: str, *options: str):
    """The arguments that `accelerate launch` ends up with, and the environment it gives to the processes."""
    parser = launch.launch_command_parser()
    line = ["--config_file", str(FILES[name]), *options, "recipes/train.py", "seed=1"]
    arguments, _, _ = launch._validate_launch_command(parser.parse_args(line))
    assert arguments.training_script_args == ["seed=1"]
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ""
        return arguments, prepare_deepspeed_cmd_env(arguments)[1]
    if arguments.multi_gpu or arguments.use_fsdp:
        return arguments, prepare_multi_gpu_env(arguments)
    return arguments, prepare_simple_launcher_cmd_env(arguments)[1]


def test_every_file_is_known_to_these_tests():
    assert {*FILES} == {
        "one_gpu", "multi_gpu", "cpu_two_processes", "two_nodes", "fsdp", "deepspeed_zero2", "deepspeed_zero3"
    }  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_taken_by_accelerate_and_opens_with_its_use(name):
    config = load_config_from_file(str(FILES[name]))
    assert isinstance(config, ClusterConfig) and config.mixed_precision == "no"
    opening = FILES[name].read_text(encoding="utf-8").split("compute_environment")[0]
    assert all(line.startswith("#") for line in opening.splitlines())
    assert f"accelerate launch --config_file recipes/launch/{name}.yaml" in opening
    assert "training.num_processes=" in opening and "un on " in opening
    assert f"recipes/launch/{name}.yaml" in (ROOT / "docs" / "guide" / "processes.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "options", "processes"),
    [("multi_gpu", ["--num_processes", "4"], 4), ("cpu_two_processes", [], 2), ("fsdp", ["--num_processes", "2"], 2)],
)
def test_several_processes_are_started_on_one_machine(name, options, processes):
    arguments, environment = prepared(name, *options)
    assert int(arguments.nproc_per_node) == processes and not arguments.cpu
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"
    assert ("ACCELERATE_USE_FSDP" in environment) == (name == "fsdp")


@pytest.mark.parametrize("name", ["multi_gpu", "fsdp", "deepspeed_zero2", "deepspeed_zero3"])
def test_the_number_of_processes_has_to_be_said(name):
    with pytest.raises(ValueError, match="num_processes"):
        prepared(name)


def test_two_nodes_share_the_processes():
    for rank in (0, 1):
        options = ["--machine_rank", str(rank), "--main_process_ip", "192.0.2.1", "--main_process_port", "29876"]
        arguments, _ = prepared("two_nodes", *options)
        assert (int(arguments.nproc_per_node), int(arguments.nnodes), arguments.node_rank) == (4, 2, rank)
        assert arguments.rdzv_endpoint == "192.0.2.1:29876"


def test_one_gpu_is_one_process_that_sees_one():
    arguments, environment = prepared("one_gpu")
    assert arguments.num_processes == 1 and not arguments.multi_gpu
    assert environment["CUDA_VISIBLE_DEVICES"] == "0"


def test_fsdp_is_the_second_version_and_wraps_layers():
    _, environment = prepared("fsdp", "--num_processes", "2")
    assert environment["FSDP_VERSION"] == "2" and environment["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
    assert "FSDP_TRANSFORMER_CLS_TO_WRAP" not in environment  # those the model names


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_has_its_stage(stage):
    _, environment = prepared(f"deepspeed_zero{stage}", "--num_processes", "2")
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == str(stage)
    _, environment = prepared(f"deepspeed_zero{stage}", "--num_processes", "2", "--zero_stage", "1")
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "1"


def environment_of(cache: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Else DeepSpeed prints in the launcher that it found no GPU.
    quiet = {"DS_ACCELERATOR": "cpu"}
    return os.environ | quiet | {"HF_DATASETS_CACHE": str(cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def train_line(folder: Path, *settings: str) -> list[str]:
    data = [*write_corpus(folder), "data.validation.max_rows=8", "--config", "tiny", f"output_dir={folder / 'runs'}"]
    return ["recipes/train.py", *data, "training.use_cpu=true", "training.num_processes=2", *settings]


def start(folder: Path, output: str, launcher: list[str], line: list[str], cache: str = "cache") -> subprocess.Popen:
    with (folder / f"{output}.out").open("w") as out, (folder / f"{output}.err").open("w") as err:
        return subprocess.Popen(
            [*launcher, *line], cwd=ROOT, env=environment_of(folder / cache), stdout=out, stderr=err,
            start_new_session=True,
        )  # fmt: skip


def two_processes(name: str = "cpu_two_processes") -> list[str]:
    return [*ACCELERATE, "--config_file", str(FILES[name])]


def processes_of(session: int) -> list[int]:
    """Those that still run in the session of a launcher."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, _, _, its = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            found += [int(entry.name)] if int(its) == session and state != "Z" else []
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "name", "launched"),
    [
        (signal.SIGTERM, "cpu_two_processes", "--multi_gpu"),
        (signal.SIGINT, "cpu_two_processes", "--multi_gpu"),
        pytest.param(
            signal.SIGTERM,
            "deepspeed_zero3",
            "--config_file recipes/launch/deepspeed_zero3.yaml",
            marks=needs_deepspeed,
        ),
    ],
)
def test_two_launched_processes_are_stopped_and_go_on(tmp_path, number, name, launched):
    """SIGINT reaches all of them, as from a terminal; SIGTERM the launcher, as from a scheduler."""
    launcher = [*two_processes(name), "--num_processes", "2"]
    line = train_line(tmp_path, "training.max_steps=100000", "training.save_steps=5", "training.eval_strategy=no")
    process = start(tmp_path, "first", launcher, line)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("runs/*/checkpoints/step-*")):
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "first.err").read_text()
        time.sleep(0.2)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    assert process.wait(60) != 0
    told = (tmp_path / "first.err").read_text()
    assert processes_of(process.pid) == []
    run = only_run(tmp_path)
    assert runs.load(run).record["status"] == "interrupted", told
    assert told.count("Interrupted.\n") == 1 and told.count(f"resume={run}") == 1
    assert f"accelerate launch {launched} --num_processes 2" in told
    assert not list((run / "checkpoints").glob(".*"))

    record = json.loads((run / "run.json").read_text())
    record["settings"]["training"]["max_steps"] = step = (
        runs.step_of(runs.list_checkpoints(run / "checkpoints")[-1]) + 5
    )
    (run / "run.json").write_text(json.dumps(record))
    process = start(tmp_path, "second", launcher, ["recipes/train.py", f"resume={run}"])
    assert process.wait(200) == 0, (tmp_path / "second.err").read_text()
    assert f"continuing at step {step - 5}" in (tmp_path / "second.err").read_text()
    assert (tmp_path / "second.out").read_text() == f"{run / 'best'}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "sharding"),
    [
        ("fsdp", ["--fsdp_reshard_after_forward", "true"], "fsdp"),
        ("fsdp", ["--fsdp_reshard_after_forward", "false"], "fsdp"),
        pytest.param("deepspeed_zero2", [], "zero2", marks=needs_deepspeed),
        pytest.param("deepspeed_zero3", [], "zero3", marks=needs_deepspeed),
    ],
)
def test_divided_weights_train_validate_stop_and_go_on(tmp_path, name, options, sharding):
    launcher = [*two_processes(name), "--num_processes", "2", *options]
    settings = ["training.max_steps=8", "training.save_steps=4", "training.eval_steps=4"]
    process = start(tmp_path, "first", launcher, train_line(tmp_path, *settings))
    assert process.wait(300) == 0, (tmp_path / "first.err").read_text()
    run = only_run(tmp_path)
    assert (tmp_path / "first.out").read_text() == f"{run / 'best'}\n"
    assert runs.load(run).record["device"]["sharding"] == sharding
    opened = AutoModelForSeq2SeqLM.from_pretrained(run / "best")
    assert "FSDP" not in json.loads((run / "best" / "config.json").read_text())["architectures"][0]
    weights = load_file(runs.checkpoint_folder(run / "checkpoints", 8) / "model.safetensors")
    assert {*weights} <= {*opened.state_dict()}
    assert not [path for path in (run / "best").rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]

    # As if it had been stopped after the first checkpoint.
    shutil.rmtree(runs.checkpoint_folder(run / "checkpoints", 8))
    shutil.rmtree(run / "best")
    record = json.loads((run / "run.json").read_text()) | {"status": "interrupted"}
    (run / "run.json").write_text(json.dumps(record))
    process = start(tmp_path, "second", launcher, ["recipes/train.py", f"resume={run}"])
    assert process.wait(300) == 0, (tmp_path / "second.err").read_text()
    assert "continuing at step 4" in (tmp_path / "second.err").read_text()
    again = load_file(runs.checkpoint_folder(run / "checkpoints", 8) / "model.safetensors")
    assert {*again} == {*weights} and all(torch.equal(again[name], tensor) for name, tensor in weights.items())


@pytest.mark.slow
def test_an_error_is_told_once_and_ends_all(tmp_path):
    line = train_line(tmp_path, "batching.max_source_length=2", "batching.too_long=error")
    process = start(tmp_path, "error", two_processes(), line)
    assert process.wait(200) == 1
    told = (tmp_path / "error.err").read_text()
    assert told.count("\nError: ") == 1 and "max_source_length" in told
    assert (tmp_path / "error.out").read_text() == "" and processes_of(process.pid) == []


@pytest.mark.slow
def test_two_nodes_with_caches_of_their_own_train_together(tmp_path):
    port = free_port()
    line = train_line(tmp_path, "training.eval_steps=12")
    nodes = []
    for rank in "01":
        options = ["--machine_rank", rank, "--num_processes", "2", "--main_process_port", port]
        nodes.append(start(tmp_path, rank, [*two_processes("two_nodes"), *options], line, f"cache-{rank}"))
    assert [node.wait(300) for node in nodes] == [0, 0], (tmp_path / "0.err").read_text()
    run = only_run(tmp_path)
    assert runs.load(run).record["status"] == "finished" and runs.load(run).record["device"]["processes"] == 2
    assert (tmp_path / "0.out").read_text() == f"{run / 'best'}\n" and (tmp_path / "1.out").read_text() == ""
    encoded = [{path.parent.name for path in tmp_path.glob(f"cache-{rank}/**/data.arrow")} for rank in "01"]
    assert encoded[0] == encoded[1] and len(encoded[0]) >= 4  # each node made its own
    log = (run / "log.txt").read_text()
    assert log.count("step 12/12") == 1
    assert len(runs.series(runs.read_metrics(run), "loss")[0]) == 6


@pytest.mark.slow
def test_nodes_that_do_not_share_the_run_folder_are_told(tmp_path):
    """The second sees another output_dir, which stands for another disk."""
    port = free_port()
    hidden = tmp_path / "hidden.py"
    hidden.write_text(
        "import pathlib, os, sys\n"
        "sys.path.insert(0, 'recipes')\n"
        "seen = pathlib.Path.is_file\n"
        "if os.environ['RANK'] == '1':\n"
        "    pathlib.Path.is_file = lambda path: path.name != 'run.json' and seen(path)\n"
        "import train\n"
        "train.__file__ = 'recipes/train.py'\n"
        "train.launch(train.main)\n"
    )
    line = [str(hidden), *train_line(tmp_path)[1:]]
    nodes = []
    for rank in "01":
        options = ["--machine_rank", rank, "--num_processes", "2", "--main_process_port", port]
        nodes.append(start(tmp_path, rank, [*two_processes("two_nodes"), *options], line))
    assert [node.wait(300) for node in nodes] == [1, 1]
    told = "\n" + (tmp_path / "1.err").read_text()  # it may be the first line
    assert told.count("\nError: output_dir: the first process made the run folder") == 1
    assert "storage that all of them share" in told
