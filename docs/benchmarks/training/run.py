"""Target tokens per CPU second of one core: hf_nmt, the plain Seq2SeqTrainer and Marian, in turn on the same text.

    python docs/benchmarks/training/run.py speed  --data FOLDER     about half an hour of one core
    python docs/benchmarks/training/run.py peak   --data FOLDER     what the core can do at best, a minute
    python docs/benchmarks/training/run.py losses --data FOLDER     the same batches through both Trainers
    python docs/benchmarks/training/run.py page                     results.json -> README.md

FOLDER of Multi30k holds train as `train.<language>.gz`. Marian takes part where `pymarian` is installed. Every system
runs in a process of its own on core 0, one after the other, several rounds; a ratio is taken within a round, and the
median of them is told. All train a transformer of 6 + 6 layers, width 256, on German to English with one vocabulary.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from hf_nmt.benchmarking import command_line, keep_result, where_measured

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
WORK = Path("predictions/training")
ROUNDS, CPU_SECONDS = 3, 45


def prepare(data: Path, work: Path) -> None:
    """Texts, vocabulary and token ids for all systems."""
    from datasets import Dataset

    from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer

    if (work / "pairs").is_dir():
        return
    shape = known()["shape"]
    texts = []
    for side, language in (("source", "de"), ("target", "en")):
        with gzip.open(data / f"train.{language}.gz", "rt", encoding="utf-8", newline="\n") as file:
            texts.append(file.read().splitlines())
        (work / f"train.{side}").write_text("\n".join(texts[-1]) + "\n", encoding="utf-8", newline="\n")
    tokenizer = train_tokenizer(
        *texts,
        TokenizerSettings(vocab_size=shape["vocabulary"]),
        source_language=["de"],
        target_language=["en"],
    )
    tokenizer.save_pretrained(work / "tokenizer")
    rows = [tokenizer(texts[0])["input_ids"], tokenizer(text_target=texts[1])["input_ids"]]
    for side, ids in zip(("source", "target"), rows, strict=True):  # Marian adds the end of a sentence
        lines = [" ".join(str(piece) for piece in row[:-1]) for row in ids]
        (work / f"train.pieces.{side}").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    names = ["</s>", "<unk>", *(str(piece) for piece in range(3, len(tokenizer)))]
    (work / "vocabulary.yml").write_text(
        "".join(f'"{name}": {number}\n' for number, name in enumerate(names)), encoding="utf-8"
    )
    lengths = [max(len(source), len(target)) for source, target in zip(*rows, strict=True)]
    pairs = Dataset.from_dict({"input_ids": rows[0], "labels": rows[1], "length": lengths})
    pairs.save_to_disk(str(work / "pairs"))


def alone(*arguments: str) -> Any:
    """What systems.py prints, run on one thread of the first core."""
    command = [sys.executable, str(HERE / "systems.py"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if shutil.which("taskset"):
        command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return json.loads(output.splitlines()[-1])


def measure(system: str, work: Path) -> dict[str, float]:
    report = alone(system, str(work), str(CPU_SECONDS))
    sys.stderr.write(f"{system}: {rate(report):.0f} target tokens per CPU second\n")
    return report


def speed(data: Path, work: Path, runs: dict[str, str]) -> None:
    prepare(data, work)
    systems = [name for name in known()["systems"] if name != "Marian" or importlib.util.find_spec("pymarian")]
    rounds = [{system: measure(system, work) for system in systems} for _ in range(ROUNDS)]
    keep_result(RESULTS, "speed", {"shape": known()["shape"], "cpu_seconds": CPU_SECONDS, "rounds": rounds})


def losses(data: Path, work: Path, runs: dict[str, str]) -> None:
    prepare(data, work)
    keep_result(RESULTS, "losses", alone("losses", str(work)))


def peak(data: Path, work: Path, runs: dict[str, str]) -> None:
    """Operations per CPU second of matrix products of these shapes, and those that a target token takes."""
    import time

    import torch
    from datasets import load_from_disk

    from hf_nmt.models.configuration_nmt import NmtConfig
    from hf_nmt.profiling.flops import forward_flops, measure_peak, product_shapes
    from hf_nmt.training.kernels import matmul_precision

    prepare(data, work)
    torch.set_num_threads(1)
    shape = known()["shape"]
    layers = {f"{side}_layers": shape["layers"] for side in ("encoder", "decoder")}
    inner = {f"{side}_ffn_dim": shape["inner"] for side in ("encoder", "decoder")}
    config = NmtConfig(vocab_size=shape["vocabulary"], d_model=shape["width"], **layers, **inner)
    pairs = load_from_disk(str(work / "pairs"))
    lengths = [[len(row) for row in pairs[name]] for name in ("input_ids", "labels")]
    flops = 3 * sum(forward_flops(config, *lengths).values()) / sum(lengths[1])
    shapes = product_shapes(shape["width"], shape["inner"], shape["vocabulary"], 4096)
    kinds = {
        "fp32": (torch.float32, "highest"),
        'fp32, precision "medium"': (torch.float32, "medium"),
        "bf16": (torch.bfloat16, "highest"),
    }
    peaks = {}
    for name, (dtype, precision) in kinds.items():
        with matmul_precision(precision):
            rates = measure_peak(shapes, dtype, torch.device("cpu"), time.process_time)
        peaks[name] = statistics.harmonic_mean(rates.values())
    keep_result(RESULTS, "peak", {"flops_per_target_token": flops, "flops_per_cpu_second": peaks})


PARTS = {"speed": speed, "peak": peak, "losses": losses}


@functools.cache
def known() -> dict[str, Any]:
    """The systems, and the shape that they train."""
    return alone()


def rate(report: dict[str, float]) -> float:
    return report["tokens"] / report["cpu_seconds"]


def page() -> None:
    """Of the parts that there are."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    lines = ["# Speed of training", "", "Made by `run.py` from `results.json`."]
    if "speed" in results:
        lines += ["", *compared(results["speed"])]
    if "peak" in results:
        lines += ["", *limits(results["peak"])]
    if "losses" in results:
        lines += ["", "## The same batches", "", *told(results["losses"])]
    processors, versions = where_measured(results[part] for part in PARTS if part in results)
    lines += ["", f"One thread on {processors}; {versions}.", ""]
    (HERE / "README.md").write_text("\n".join(lines), encoding="utf-8")


def compared(speed: dict[str, Any]) -> list[str]:
    rounds, shape = speed["rounds"], speed["shape"]
    peers = [name for name in rounds[0] if not name.startswith("hf_nmt")]
    lines = [
        f"Target tokens per CPU second of one core, Multi30k German to English, {shape['layers']} + "
        f"{shape['layers']} layers, width {shape['width']}, inner {shape['inner']}, {shape['vocabulary']:,} pieces, "
        f"dropout {shape['dropout']} of residual branches and embeddings only, label smoothing {shape['smoothing']}, "
        "some 4,000 target tokens an update, AdamW (Marian: Adam). "
        f"{len(rounds)} rounds of {speed['cpu_seconds']} CPU seconds each after three updates, the systems "
        "in turn; medians, and of the ratios the median of those within a round (least to largest).",
        "",
        "- random: batches of 260 random pairs; grouped: by `train_sampling_strategy=group_by_length`",
        '- tuned: grouped, `attn_implementation="eager"` and `set_float32_matmul_precision("medium")`',
        "",
        "| system | tokens per CPU second | hf_nmt fp32 / it | hf_nmt bf16 / it |",
        "|---|---|---|---|",
    ]

    def ratio(ours: str, peer: str) -> str:
        values = sorted(rate(entry[ours]) / rate(entry[peer]) for entry in rounds)
        return f"{statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})"

    for name in rounds[0]:
        cells = [ratio(f"hf_nmt, {kind}", name) if name in peers else "" for kind in ("fp32", "bf16")]
        lines.append(
            f"| {name} | {statistics.median(rate(entry[name]) for entry in rounds):,.0f} | {' | '.join(cells)} |"
        )
    return lines


def limits(peak: dict[str, Any]) -> list[str]:
    flops = peak["flops_per_target_token"]
    rows = [
        f"| {name} | {rate / 1e9:.0f} | {rate / flops:,.0f} |" for name, rate in peak["flops_per_cpu_second"].items()
    ]
    return [
        f"An update takes {flops / 1e6:.1f} million operations a target token in matrix products, three times the "
        "forward pass. At best, with nothing else to do, this core would train:",
        "",
        "| products in | thousand million operations per CPU second | target tokens per CPU second |",
        "|---|---|---|",
        *rows,
    ]


def told(losses: dict[str, float]) -> list[str]:
    return [
        "The same batches, dropout 0, through `TranslationTrainer` and the plain `Seq2SeqTrainer`, from the same "
        "weights:",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value:.2g} |" for name, value in losses.items() if isinstance(value, float)),
    ]


if __name__ == "__main__":
    command_line(__doc__, PARTS, page, work=WORK)
