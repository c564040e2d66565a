"""Stream a gigabyte of JSONL through a training, watch its memory, and write the page about it.

    python docs/benchmarks/streaming/run.py measure --work FOLDER     half an hour of one core, 1.1 GB in FOLDER
    python docs/benchmarks/streaming/run.py page                      results.json -> README.md and the figure

The text is made here: records of one to eleven sentences of the built-in corpus, drawn at random with a fixed seed.
Every byte is read and every record encoded; pairs of more than 24 tokens, which is most of those of several sentences,
are then dropped as too long, and a model as small as models come is trained on the rest, so that reading, encoding and
batching are the work that is seen. The training is interrupted at the last update of the first reading.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from hf_nmt.artifacts import hash_file
from hf_nmt.benchmarking import ROOT, keep_result
from hf_nmt.data import controlled
from hf_nmt.training import checkpoints

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
MOST_SENTENCES = 11  # of a record
MEGABYTES = {"a tenth": 100, "all": 1000}
SECONDS_BETWEEN = 1.0
ARGUMENTS = (
    "data.source_language=ko", "data.target_language=en", "data.train.streaming=true", "seed=1",
    "tokenizer.max_training_sentences=20000", "tokenizer.vocab_size=2000",
    "model.d_model=16", "model.encoder_layers=1", "model.decoder_layers=1", "model.encoder_attention_heads=2",
    "model.decoder_attention_heads=2", "model.encoder_ffn_dim=32", "model.decoder_ffn_dim=32",
    "model.max_position_embeddings=32", "model.dropout=0",
    "batching.max_source_length=24", "batching.max_target_length=24", "batching.batch_tokens=12000",
    "decoding.max_target_length=24", "training.max_steps=1000000", "training.warmup_steps=100",
    "training.use_cpu=true", "training.logging_steps=1", "training.save_steps=10", "training.eval_steps=10",
    "training.save_total_limit=1", "training.num_average_checkpoints=0", "training.disable_tqdm=true",
)  # fmt: skip

PAGE = """# Streaming

Made by `run.py` from `results.json`, which holds the arguments, versions, the hash of the text and every sample.

JSONL of one to eleven sentences a record, made by the script, read once through by `recipes/train.py` with
`data.train.streaming=true` in the training process itself (`dataloader_num_workers=0`). Every record is read and
encoded; those of more than 24 tokens a side are then dropped as too long, and a model of some ten thousand weights is
trained on the rest. So this measures reading, encoding and batching, with updates to feed; it says nothing about a
model's speed.

| text | records | pairs read | updates | CPU-minutes | least memory (MiB) | most memory (MiB) |
|---|---|---|---|---|---|---|
{rows}

Memory is what is the process's own (RssAnon), without the first quarter of the time, in which the file is hashed and
the tokenizer trained. Pairs read, updates and CPU time are those of the last checkpoint, at most ten updates before
the end.

![Memory of the process against time](results.png)

One thread on {processor}; {versions}.
"""


def write_corpus(path: Path, megabytes: int) -> int:
    """JSONL of so many million bytes; returns the number of records."""
    rows = controlled.build("full", "train").select_columns(["source", "target"])[:]
    pairs = list(zip(rows["source"], rows["target"], strict=True))
    draw = random.Random(0)
    records = 0
    with path.open("w", encoding="utf-8") as file:
        size = 0
        while size < megabytes * 10**6:
            source, target = (
                " ".join(side) for side in zip(*draw.choices(pairs, k=draw.randint(1, MOST_SENTENCES)), strict=True)
            )
            line = json.dumps({"source": source, "target": target}, ensure_ascii=False) + "\n"
            size += len(line.encode())
            file.write(line)
            records += 1
    return records


def memory_of(process: int) -> dict[str, float]:
    """MiB that are the process's own (RssAnon), and with mapped files (VmRSS)."""
    names = {"RssAnon:": "anonymous", "VmRSS:": "resident"}
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {names[line.split()[0]]: int(line.split()[1]) / 1024 for line in lines if line.split()[0] in names}


def readings(folder: Path, before: set[str]) -> float:
    """The epoch that the newest run has logged; 0 before."""
    for metrics in folder.glob("*/metrics.jsonl"):
        lines = metrics.read_text(encoding="utf-8").splitlines()
        if metrics.parent.name not in before and lines:
            return json.loads(lines[-1])["epoch"]
    return 0.0


def bytes_read(process: int, path: Path) -> int:
    """How far the process has read a file, by its open descriptors; 0 where it has none on it."""
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        try:
            if os.readlink(descriptor) == str(path):
                told = Path(f"/proc/{process}/fdinfo/{descriptor.name}").read_text()
                return int(told.split("pos:")[1].split()[0])
        except OSError:
            continue
    return 0


def _interruptible() -> None:
    """A shell in the background lets its children ignore the interrupt."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def measure(name: str, work: Path) -> None:
    path = work / f"{MEGABYTES[name]}.jsonl"
    records = write_corpus(path, MEGABYTES[name])
    command = [sys.executable, str(ROOT / "recipes" / "train.py"), *ARGUMENTS]
    command += [f"data.train.path={path}", f"output_dir={work / 'runs'}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "home")}
    runs = {path.name for path in (work / "runs").glob("*")}
    samples = []
    with (work / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=log, preexec_fn=_interruptible
        )
        start = time.monotonic()
        read = 0.0
        while process.poll() is None:
            try:
                read = max(read, round(bytes_read(process.pid, path.resolve()) / 10**6, 1))
                samples.append(
                    {
                        "seconds": round(time.monotonic() - start, 1),
                        "megabytes_read": read,  # a file that was read to its end is closed
                        **{kind: round(size, 1) for kind, size in memory_of(process.pid).items()},
                    }
                )
            except (OSError, IndexError):
                pass
            if readings(work / "runs", runs) >= 1:
                process.send_signal(signal.SIGINT)
                break
            time.sleep(SECONDS_BETWEEN)
        if process.wait() != 130:
            raise SystemExit((work / "log.txt").read_text())
    (run,) = (path for path in (work / "runs").iterdir() if path.name not in runs)
    state = checkpoints.read_state(checkpoints.list_checkpoints(run / "checkpoints")[-1])
    keep_result(
        RESULTS,
        name,
        {
            "corpus": {"bytes": path.stat().st_size, "records": records, "sha256": hash_file(path)},
            "arguments": list(ARGUMENTS),
            "seconds_between_samples": SECONDS_BETWEEN,
            # Of the last checkpoint, at most ten updates before the end.
            "checkpoint": {"step": state["step"], "stream": state["stream"]["totals"], **state["stopwatch"]},
            "samples": samples,
        },
    )
    path.unlink()


def in_training(entry: dict) -> list[dict]:
    """Samples without the first quarter of the time, in which the file is hashed and the tokenizer trained."""
    return entry["samples"][len(entry["samples"]) // 4 :]


def page() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    figure, axes = plt.subplots(figsize=(7, 4), constrained_layout=True)
    for name, colour in (("all", "tab:blue"), ("a tenth", "tab:orange")):
        samples = results[name]["samples"]
        label = f"{results[name]['corpus']['bytes'] / 10**9:.1f} GB"
        minutes = [sample["seconds"] / 60 for sample in samples]
        axes.plot(minutes, [sample["anonymous"] for sample in samples], color=colour, label=f"memory, {label}")
    axes.set(xlabel="minutes", ylabel="anonymous memory of the process (MiB)", ylim=(0, None))
    axes.legend(loc="lower right")
    figure.savefig(HERE / "results.png", dpi=120)
    rows = []
    for name in ("a tenth", "all"):
        entry, memory = results[name], [sample["anonymous"] for sample in in_training(results[name])]
        rows.append(
            f"| {entry['corpus']['bytes'] / 10**9:.1f} GB | {entry['corpus']['records']:,} "
            f"| {entry['checkpoint']['stream']['pairs']:,} | {entry['checkpoint']['step']:,} "
            f"| {entry['checkpoint']['cpu_seconds'] / 60:.1f} | {min(memory):.0f} | {max(memory):.0f} |"
        )
    versions = ", ".join(f"{name} {number}" for name, number in results["all"]["environment"]["versions"].items())
    text = PAGE.format(rows="\n".join(rows), processor=results["all"]["environment"]["processor"], versions=versions)
    (HERE / "README.md").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "page"])
    parser.add_argument("--work", type=Path, help="folder for the text and the runs")
    parser.add_argument("--text", choices=MEGABYTES, action="append", help="how much of it; both unless given")
    given = parser.parse_args()
    if given.what == "page":
        page()
    else:
        given.work.mkdir(parents=True, exist_ok=True)
        for name in given.text or MEGABYTES:
            measure(name, given.work)


if __name__ == "__main__":
    main()
