"""Stream a gigabyte of JSONL through a training, watch its memory, and write the page about it.

    python docs/benchmarks/streaming/run.py measure --work FOLDER     twenty minutes of one core, 1.1 GB in FOLDER
    python docs/benchmarks/streaming/run.py costs --work FOLDER       a minute
    python docs/benchmarks/streaming/run.py page                      results.json -> README.md and the figure

The text is made here: records of 5 to 75 words of two made-up languages, drawn with a fixed seed. Its words are long
and few, so that a vocabulary of hundreds of pieces, the cheapest to train, holds nearly all of them whole, and every
record can pass through updates of a model as small as models come. The training is interrupted when it has read the
text once.

The costs of reading and of encoding are taken on other text, of natural tokens: records of one to eleven sentences of
the built-in corpus, in a vocabulary of 8,000.
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

import numpy as np
import pyarrow as pa
from safetensors.torch import load_file

from hf_nmt.artifacts import hash_file
from hf_nmt.batching import BatchingSettings, PairEncoder, TokenBatchSampler, TranslationCollator
from hf_nmt.batching.encoding import hash_tables
from hf_nmt.benchmarking import ROOT, keep_result, subplots, where_measured
from hf_nmt.data import controlled
from hf_nmt.data.sources import CorpusSettings
from hf_nmt.data.streams import stream_pairs
from hf_nmt.runs import list_checkpoints
from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer
from hf_nmt.training import checkpoints

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
NUM_WORDS = 250
WORDS_OF_A_RECORD = (5, 75)
SYLLABLES = {
    side: [opening + vowel for opening in openings.split() for vowel in vowels.split()]
    for side, openings, vowels in (
        ("source", "b d f gl kr m sch t", "i o um"),
        ("target", "h j k pl str v w z", "a ei ou"),
    )
}
MEGABYTES = {"a tenth": 100, "all": 1000}
SECONDS_BETWEEN = 1.0
COST_RECORDS = 20_000
LONGEST = 96  # tokens of a side
ARGUMENTS = (
    "data.source_language=qaa", "data.target_language=qab", "data.train.streaming=true", "seed=1",
    "tokenizer.max_training_sentences=20000", "tokenizer.vocab_size=700", "tokenizer.joint=false",
    "tokenizer.byte_fallback=false",
    "model.d_model=8", "model.encoder_layers=1", "model.decoder_layers=1", "model.encoder_attention_heads=1",
    "model.decoder_attention_heads=1", "model.encoder_ffn_dim=16", "model.decoder_ffn_dim=16",
    f"model.max_position_embeddings={LONGEST}", "model.dropout=0", f"batching.max_source_length={LONGEST}",
    f"batching.max_target_length={LONGEST}", "batching.batch_tokens=24000", f"decoding.max_target_length={LONGEST}",
    "training.max_steps=1000000", "schedule.warmup_steps=100", "training.learning_rate=1e-2",
    "training.use_cpu=true", "training.logging_steps=5", "training.save_steps=20", "training.eval_strategy=no",
    "training.save_total_limit=1", "training.num_average_checkpoints=0", "training.disable_tqdm=true",
)  # fmt: skip

PAGE = """# Streaming

Made by `run.py` from `results.json`, which holds the arguments, versions, the hash of the text and every sample.

JSONL, made by the script, read once through by `recipes/train.py` with `data.train.streaming=true` in the training
process itself (`dataloader_num_workers=0`). Pairs of more than {longest} tokens a side are dropped as too long; all
others pass through updates. The text is {fewest} to {most} words a record, of {words} long words in each of two
made-up languages, most of them one token, and the model has {weights:,} weights: what a gigabyte costs to train on
depends on its tokens, and these are few and cheap. So the page shows memory, and that a text goes through whole; it
says nothing about the speed of models.

| text | pairs read | trained on | tokens | updates | CPU-minutes | memory by quarters (MiB) | most memory (MiB) |
|---|---|---|---|---|---|---|---|
{rows}

Tokens are those of both sides, padding not counted; CPU-minutes those of the training, without the tokenizer. A run
ends at the first log after the last pair, up to five updates into the next reading. Memory is what is the process's
own (RssAnon), from the first update on that was logged: the median of each quarter of the time, and the most. It goes
up and down with a window, of which one is held and trained on while the next is read.

![Memory of the process against time](results.png)

The dots are the first updates; before them the file is hashed and the tokenizer trained. One thread on {processor};
{versions}.

## What a pair costs

| reading | comparing | encoding | cutting into batches | tensors | tokens of a pair |
|---|---|---|---|---|---|
{costs}

In microseconds a pair, one thread, on records of one to eleven sentences of the built-in corpus in a vocabulary of
8,000. With several processes each has all of it but the tensors, of which it makes its own alone: one encoding thread
gives them {rate:,.0f} tokens a second together, both sides counted, however many they are.
"""


def words_of(side: str, draw: np.random.Generator) -> list[str]:
    """Words of three to six syllables, in the order of their frequency."""
    words: dict[str, None] = {}
    while len(words) < NUM_WORDS:
        words["".join(draw.choice(SYLLABLES[side], size=draw.integers(3, 7)))] = None
    return list(words)


def write_corpus(path: Path, megabytes: int) -> int:
    """JSONL of so many million bytes, each word by its counterpart of the same rank; returns the number of records."""
    draw = np.random.default_rng(0)
    words = {side: words_of(side, draw) for side in SYLLABLES}
    shares = 1 / np.arange(10, NUM_WORDS + 10)  # Mandelbrot (1953): of rank r, proportional to 1 / (r + 10)
    cumulated = np.cumsum(shares / shares.sum())
    records = size = 0
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 10**6:
            count = int(draw.integers(*WORDS_OF_A_RECORD, endpoint=True))
            ranks = np.searchsorted(cumulated[:-1], draw.random(count))
            record = {side: " ".join(words[side][rank] for rank in ranks) for side in SYLLABLES}
            line = json.dumps(record) + "\n"
            size += len(line)
            file.write(line)
            records += 1
    return records


def memory_of(process: int) -> dict[str, float]:
    """MiB that are the process's own (RssAnon), and with mapped files (VmRSS)."""
    names = {"RssAnon:": "anonymous", "VmRSS:": "resident"}
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {names[line.split()[0]]: int(line.split()[1]) / 1024 for line in lines if line.split()[0] in names}


def progress(folder: Path, before: set[str]) -> tuple[float, int]:
    """Epoch and update that the newest run has logged last; zeros before."""
    for metrics in folder.glob("*/metrics.jsonl"):
        lines = metrics.read_text(encoding="utf-8").splitlines()
        if metrics.parent.name not in before and lines:
            last = json.loads(lines[-1])
            return last["epoch"], last["step"]
    return 0.0, 0


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
        read = epoch = 0.0
        while process.poll() is None:
            try:
                read = max(read, round(bytes_read(process.pid, path.resolve()) / 10**6, 1))
                epoch, step = progress(work / "runs", runs)
                samples.append(
                    {
                        "seconds": round(time.monotonic() - start, 1),
                        "megabytes_read": read,  # a file that was read to its end is closed
                        "step": step,
                        **{kind: round(size, 1) for kind, size in memory_of(process.pid).items()},
                    }
                )
            except (OSError, IndexError):
                pass
            if epoch >= 1:
                process.send_signal(signal.SIGINT)
                break
            time.sleep(SECONDS_BETWEEN)
        if process.wait() != 130:
            raise SystemExit((work / "log.txt").read_text())
    (run,) = (path for path in (work / "runs").iterdir() if path.name not in runs)
    keep_result(
        RESULTS,
        name,
        {
            "corpus": {"bytes": path.stat().st_size, "records": records, "sha256": hash_file(path)},
            "arguments": list(ARGUMENTS),
            "seconds_between_samples": SECONDS_BETWEEN,
            **facts_of(run),
            "samples": samples,
        },
    )
    path.unlink()


def costs(work: Path) -> None:
    """CPU time of each step from a file to tensors, on a single window."""
    rows = controlled.build("full", "train").select_columns(["source", "target"])[:]
    pairs, draw = list(zip(rows["source"], rows["target"], strict=True)), random.Random(0)
    path = work / "sentences.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for _ in range(COST_RECORDS):
            source, target = (" ".join(side) for side in zip(*draw.choices(pairs, k=draw.randint(1, 11)), strict=True))
            file.write(json.dumps({"source": source, "target": target}, ensure_ascii=False) + "\n")
    stream = stream_pairs(CorpusSettings(path=str(path)))
    head = stream.head(5000, cache_dir=work / "home")
    tokenizer = train_tokenizer(
        head["source"], head["target"], TokenizerSettings(vocab_size=8000), source_language="ko", target_language="en"
    )
    limits = BatchingSettings(batch_tokens=8192)
    encoder, collator = PairEncoder(tokenizer, limits), TranslationCollator(tokenizer.pad_token_id, 2)
    times = [time.process_time()]

    def timed(value):
        times.append(time.process_time())
        return value

    table = timed(pa.Table.from_batches(list(stream.tables())))
    timed(hash_tables([table], ["source", "target"]))
    encoded = timed(encoder(table.to_pydict()))
    lengths = [np.array([len(ids) for ids in side]) for side in (encoded.input_ids, encoded.labels)]
    batches = timed(list(TokenBatchSampler(*lengths, limits, seed=1, is_told=False)))
    for batch in batches:
        collator([{"input_ids": encoded.input_ids[row], "labels": encoded.labels[row]} for row in batch])
    timed(None)
    names = ("reading", "comparing", "encoding", "cutting", "tensors")
    keep_result(
        RESULTS,
        "costs",
        {
            "pairs": len(table),
            "tokens": int(sum(side.sum() for side in lengths)),
            "seconds": dict(zip(names, np.diff(times).tolist(), strict=True)),
        },
    )
    path.unlink()


def facts_of(run: Path) -> dict:
    """What was read and trained on. The last checkpoint is at most twenty updates before the end."""
    checkpoint = list_checkpoints(run / "checkpoints")[-1]
    state = checkpoints.read_state(checkpoint)
    stream = state["stream"]
    last = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return {
        "weights": sum(tensor.numel() for tensor in load_file(checkpoint / "model.safetensors").values()),
        "reading": stream["before"] if stream["epoch"] else stream["totals"],
        "end": {name: last[name] for name in ("step", "epoch", "tokens")},
        "checkpoint": {"step": state["step"], **state["stopwatch"]},
    }


def in_training(entry: dict) -> list[dict]:
    return [sample for sample in entry["samples"] if sample["step"] > 0]


def page() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    figure, axes = subplots(figsize=(7, 4), constrained_layout=True)
    for name, colour in (("all", "tab:blue"), ("a tenth", "tab:orange")):
        label = f"{results[name]['corpus']['bytes'] / 10**9:.1f} GB"
        minutes, memory = (
            np.array([sample[column] for sample in results[name]["samples"]]) for column in ("seconds", "anonymous")
        )
        first = len(minutes) - len(in_training(results[name]))
        axes.plot(minutes / 60, memory, color=colour, label=label)
        axes.plot(minutes[first] / 60, memory[first], "o", color=colour)
    axes.set(xlabel="minutes", ylabel="anonymous memory of the process (MiB)", ylim=(0, None))
    axes.legend(loc="lower right")
    figure.savefig(HERE / "results.png", dpi=120)
    rows = []
    for name in ("a tenth", "all"):
        entry, memory = results[name], [sample["anonymous"] for sample in in_training(results[name])]
        read, end = entry["reading"], entry["end"]
        assert read["pairs"] == entry["corpus"]["records"] and end["epoch"] >= 1
        trained = read["pairs"] - sum(read["dropped"].values())
        quarters = [f"{np.median(part):.0f}" for part in np.array_split(memory, 4)]
        rows.append(
            f"| {entry['corpus']['bytes'] / 10**9:.1f} GB | {read['pairs']:,} "
            f"| {trained:,} ({100 * trained / read['pairs']:.1f}%) | {end['tokens']:,} | {end['step']:,} "
            f"| {entry['checkpoint']['cpu_seconds'] / 60:.1f} | {', '.join(quarters)} | {max(memory):.0f} |"
        )
    cost, (processor, versions) = results["costs"], where_measured([results["all"]])
    micro = [1e6 * seconds / cost["pairs"] for seconds in cost["seconds"].values()]
    text = PAGE.format(
        rows="\n".join(rows), longest=LONGEST, fewest=WORDS_OF_A_RECORD[0], most=WORDS_OF_A_RECORD[1], words=NUM_WORDS,
        weights=results["all"]["weights"], processor=processor,
        costs=f"| {' | '.join(f'{each:.1f}' for each in micro)} | {cost['tokens'] / cost['pairs']:.0f} |",
        rate=round(cost["tokens"] / sum(value for name, value in cost["seconds"].items() if name != "tensors"), -4),
        versions=versions,
    )  # fmt: skip
    (HERE / "README.md").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "costs", "page"])
    parser.add_argument("--work", type=Path, help="folder for the text and the runs")
    parser.add_argument("--text", choices=MEGABYTES, action="append", help="how much of it; both unless given")
    given = parser.parse_args()
    if given.what == "page":
        page()
        return
    given.work.mkdir(parents=True, exist_ok=True)
    if given.what == "costs":
        costs(given.work)
    else:
        for name in given.text or MEGABYTES:
            measure(name, given.work)


if __name__ == "__main__":
    main()
