"""What noise in the training text costs a model, and what prepare_data gets back.

    python docs/benchmarks/noise/run.py noisy    --data FOLDER     six minutes of one core, as each of these
    python docs/benchmarks/noise/run.py cleaned  --data FOLDER
    python docs/benchmarks/noise/run.py aligned  --data FOLDER
    python docs/benchmarks/noise/run.py unspoilt --data FOLDER
    python docs/benchmarks/noise/run.py page                       results.json -> README.md

FOLDER holds Multi30k: `train.<language>.gz` for de, en, fr and cs, and `val` and `test_2016_flickr` for de and en. A
fifth of the German-English training pairs is spoilt, by a seed. The same model is trained for the same updates on that
text as it is, after `prepare_data` with its own list of steps, after it with `alignment` besides, and on the text that
nothing was planted in. `noisy` comes first: the others are compared with it. A broken-off run is taken up with
`--run noisy=runs/<id>`.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from hf_nmt.benchmarking import (
    command_line,
    interval_text,
    keep_result,
    recipe,
    run_facts,
    score,
    train,
    where_measured,
)
from hf_nmt.cleaning.settings import DEFAULT_STEPS, STEPS_WITH_ALIGNMENT
from hf_nmt.planting import Pair, plant

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
WORK = Path("predictions/noise")
SEED, UPDATES = 20221123, 400
# A fifth of 29,000; only 162 pairs have a number on both sides.
PLANTED = {"number": 140, "shifted": 860} | dict.fromkeys(
    ("copy", "swapped", "language", "half", "mojibake", "markup"), 800
)
STEPS = {"cleaned": DEFAULT_STEPS, "aligned": STEPS_WITH_ALIGNMENT}
TITLES = {
    "noisy": "the noise left in",
    "cleaned": "cleaned by the default steps",
    "aligned": "... and `alignment`",
    "unspoilt": "nothing planted",
}
REST = "not planted"
SEARCHES = {"greedy": 1, "beam of 5": 5}
MODEL = (
    "model.d_model=192",
    "model.encoder_ffn_dim=512",
    "model.decoder_ffn_dim=384",
    "model.decoder_layers=2",
    "model.dropout=0.15",
    "training.optim=muon",
    "training.learning_rate=0.005",
    "schedule.warmup_steps=100",
    f"training.max_steps={UPDATES}",
    f"training.eval_steps={UPDATES}",
    "training.save_steps=100",
    "training.num_average_checkpoints=1",
    "decoding.num_beams=1",
)


def lines(data: Path, name: str, language: str) -> list[str]:
    with gzip.open(data / f"{name}.{language}.gz", "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def written(data: Path, path: Path, pairs: list[Pair], planted: dict[str, int]) -> Path:
    """The training text as records; of a spoilt pair `article` names the kind and the place."""
    others = [lines(data, "train", language) for language in ("fr", "cs")]
    found = plant(pairs, planted, SEED, others=others)
    rows = []
    for place, pair in enumerate(pairs):
        kind, (source, target) = found.get(place, (None, pair))
        rows.append({"source": source, "target": target, "article": f"{kind}-{place}" if kind else None})
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def prepared(name: str, text: Path, work: Path) -> Path:
    """The version that the recipe makes of the text."""
    version = recipe(
        "prepare_data", "source_language=de", "target_language=en", f"inputs.captions.path={text}",
        f"steps={json.dumps([{kind: {}} for kind in STEPS[name]])}", f"output_dir={work / name}",
        f"work_dir={work / 'between'}", "num_workers=1",
    )  # fmt: skip
    return Path(version)


def told(version: Path, pairs: list[Pair]) -> dict[str, Any]:
    """What went of each kind that was planted and of the rest, what was mended, and what is left."""
    gone, mended, left = Counter[str](), Counter[str](), Counter[str]()
    for row in rows_of(version, "rejects.parquet"):
        gone[kind_of(row)] += 1
    for row in rows_of(version, "data/*.parquet"):
        kind = kind_of(row)
        whole = kind != REST and (row["source"], row["target"]) == pairs[int(row["article"].split("-")[1])]
        (mended if whole else left)[kind] += 1
    return {"dropped": dict(gone), "mended": dict(mended), "left": dict(left)}


def rows_of(version: Path, files: str) -> list[dict[str, Any]]:
    columns = ["article", "source", "target"]
    tables = [pq.read_table(path, columns=columns) for path in sorted(version.glob(files))]
    return [row for table in tables for row in table.to_pylist()]


def kind_of(row: dict[str, Any]) -> str:
    return row["article"].split("-")[0] if row["article"] else REST


def trained(name: str, data: Path, work: Path, runs: dict[str, str]) -> None:
    pairs = list(zip(*(lines(data, "train", side) for side in ("de", "en")), strict=True))
    text = written(data, work / f"{name}.jsonl", pairs, {} if name == "unspoilt" else PLANTED)
    facts, corpus = {}, f"data.train.path={text}"
    if name in STEPS:
        version = prepared(name, text, work)
        facts, corpus = {"prepared": told(version, pairs)}, f"data.version={version}"
    sides = [
        f"data.validation.{side}={data}/val.{language}.gz" for side, language in (("source", "de"), ("target", "en"))
    ]
    run = train(runs.get(name), "--config=de-en_small", f"name={name}", f"output_dir={work}", *MODEL, corpus, *sides)
    state = json.loads((run / "checkpoints" / f"step-{UPDATES}" / "run_state.json").read_text(encoding="utf-8"))
    facts |= {"cpu_seconds": state["stopwatch"]["cpu_seconds"], "test_2016_flickr": tested(name, run, data, work)}
    keep_result(RESULTS, name, run_facts(run) | facts)


def tested(name: str, run: Path, data: Path, work: Path) -> dict[str, Any]:
    """Scores of the test set for each search, beside those of the model that was trained on the noise."""
    sides = [
        f"data.test.{side}={data}/test_2016_flickr.{language}.gz"
        for side, language in (("source", "de"), ("target", "en"))
    ]
    found = {}
    for search, beams in SEARCHES.items():
        noisy, beside = work / f"noisy-{beams}", []
        if name != "noisy" and noisy.is_dir():
            beside = [f"baseline={max(noisy.iterdir()) / 'translations.txt'}"]
        folder, values = score(
            f"{name}-{beams}", work, f"model={run / 'best'}", *sides, f"decoding.num_beams={beams}", *beside
        )
        against = json.loads((folder / "comparisons.json").read_text(encoding="utf-8")) if beside else None
        found[search] = {"scores": values, "against_noisy": against}
    return found


PARTS = {name: functools.partial(trained, name) for name in TITLES}


def page() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    runs = {name: results[name] for name in TITLES if name in results}
    text = [
        "# Training on noise, and on what is left of it after cleaning",
        "",
        "Made by `run.py` from `results.json`, which holds settings, versions and curves. The commands stand in its "
        "head.",
        "",
        f"Of the 29,000 German-English training pairs of Multi30k {sum(PLANTED.values()):,} are spoilt, a fifth: "
        f"{', '.join(f'{count} {kind}' for kind, count in PLANTED.items())}; what these are is told "
        "[beside](../planted_defects/README.md). `prepare_data` cleans the text with its default steps"
        f"{', and with `alignment` besides' if 'aligned' in runs else ''}. "
        f"Each model has {parameters(runs)} million weights and is trained for {UPDATES} updates "
        "of at most 2,048 tokens, with the same settings and seed; its tokenizer is learnt from its own text, too. "
        "The validation text and the test set of 2016 are as they were. Nothing was chosen by the test set; "
        "each model translated it once for each search. Intervals and p are over sentences (bootstrap and paired "
        "bootstrap); one seed of training each, so that differences of half a point may be chance.",
        "",
        "| trained on | pairs | planted, left | validation loss | validation BLEU, greedy | test BLEU, greedy | p | "
        "test BLEU, beam of 5 | p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, run in runs.items():
        prepared = run.get("prepared", {"left": PLANTED if name == "noisy" else {}, "dropped": {}})
        pairs = 29_000 - sum(prepared["dropped"].values())
        planted = sum(count for kind, count in prepared["left"].items() if kind != REST)
        loss, bleu = (run["curves"][f"eval_{what}"][-1][1] for what in ("loss", "bleu"))
        cells = [f"{pairs:,}", f"{planted:,}", f"{loss:.3f}", f"{bleu:.2f}"]
        for found in run["test_2016_flickr"].values():
            cells += [interval_text(found["scores"], "bleu"), p_text(found["against_noisy"])]
        text.append(f"| {TITLES[name]} | {' | '.join(cells)} |")
    text += ["", "p: the chance of such a difference to the model trained on the noise, were they equally good.", ""]
    if cleaned := {name: run["prepared"] for name, run in runs.items() if "prepared" in run}:
        text += [
            f"| kind | planted | {' | '.join(f'dropped and mended, {TITLES[name]}' for name in cleaned)} |",
            "|---|---|" + "---|" * len(cleaned),
        ]
        for kind, count in (*sorted(PLANTED.items()), (REST, 29_000 - sum(PLANTED.values()))):
            found = [(one["dropped"].get(kind, 0), one["mended"].get(kind, 0)) for one in cleaned.values()]
            cells = [f"{dropped:,}" + (f" and {mended:,}" if mended else "") for dropped, mended in found]
            text.append(f"| {kind} | {count:,} | {' | '.join(cells)} |")
        text.append("")
    seconds = ", ".join(f"{TITLES[name]} {run['cpu_seconds']:.0f}" for name, run in runs.items())
    processors, versions = where_measured(runs.values())
    text += [f"CPU seconds of the updates: {seconds}. One thread on {processors}, bfloat16; {versions}.", ""]
    (HERE / "README.md").write_text("\n".join(text), encoding="utf-8")


def parameters(runs: dict[str, Any]) -> str:
    sizes = {round(run["summary"]["parameters"] / 1e6, 1) for run in runs.values()}
    return " or ".join(str(size) for size in sorted(sizes))


def p_text(comparisons: list[dict[str, Any]] | None) -> str:
    if comparisons is None:
        return ""
    (bleu,) = [one for one in comparisons if one["name"].lower() == "bleu"]
    return f"{bleu['p_value']:.3f}" if bleu["p_value"] >= 0.001 else "< 0.001"


if __name__ == "__main__":
    command_line(__doc__, PARTS, page, work=WORK)
