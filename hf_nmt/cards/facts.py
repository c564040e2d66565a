"""What a card says: read from the records of a run, and never from anywhere else.

Which fact comes from where is written in model_cards/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_nmt.artifacts import may_be_hub_id
from hf_nmt.errors import DataError, NmtError
from hf_nmt.metrics import Score
from hf_nmt.protocols import LANGUAGE_COLUMNS, languages_named
from hf_nmt.run_records import Records, read_records

_SHOWN_PACKAGES = ("hf_nmt", "torch", "transformers", "tokenizers", "datasets", "peft", "sacrebleu")


def read_run(folder: Path | str) -> Records:
    """Read the records of a run folder.

    Raises:
        NmtError: there is no run, or a record is not JSON.
    """
    records = read_records(folder)
    if records.problems:
        raise DataError("\n".join(records.problems))
    if not records.run:
        raise NmtError(f"{folder} is not a run folder: there is no run.json in it.")
    return records


def language_pairs(record: Records, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(source, target) codes that the model was trained for, as the run has them."""
    data = record.run["settings"]["data"]
    named = [_sides(one, languages_named(name)) for name, one in (data.get("pairs") or {}).items()]
    own = _sides({side: data.get(side) or config.get(side) for side in LANGUAGE_COLUMNS})
    known = [pair for pair in named or [own, record.manifest.get("languages", [])] if len(pair) == 2]
    return list(dict.fromkeys((pair[0], pair[1]) for pair in (known if named else known[:1])))


def _sides(given: Mapping[str, Any], otherwise: Sequence[str | None] = (None, None)) -> list[str]:
    sides = [given.get(side) or other for side, other in zip(LANGUAGE_COLUMNS, otherwise, strict=True)]
    return [code for code in sides if code]


def card_languages(codes: Iterable[str]) -> tuple[list[str], list[str]]:
    """ISO 639 codes as the Hub lists them, and the whole codes where these say more: `zh-Hant` -> `zh`, `zh-Hant`."""
    codes = list(dict.fromkeys(codes))
    short = list(dict.fromkeys(re.split("[-_]", code)[0].lower() for code in codes))
    whole = [code.replace("_", "-") for code in codes if re.search("[-_]", code)]
    return [code for code in short if re.fullmatch("[a-z]{2,3}", code)], whole


def base_model(record: Records) -> str | None:
    """The id of the Hub's model that was trained further; None where there is none, or a folder."""
    name = (record.run["settings"].get("model") or {}).get("pretrained")
    return name if name and may_be_hub_id(name) and not Path(name).exists() else None


def base_folder(record: Records) -> str | None:
    """The folder of the model that was trained further, from where the run was started; None where only an absolute
    path tells, or the model is one of the Hub."""
    name = (record.run["settings"].get("model") or {}).get("pretrained")
    return name if name and base_model(record) is None and not _is_absolute(name) else None


def was_continued(record: Records) -> bool:
    """Whether the training began with the weights of another model."""
    return bool((record.run["settings"].get("model") or {}).get("pretrained"))


def hub_datasets(record: Records) -> list[str]:
    """Ids of the Hub's datasets that were trained on."""
    inputs = [inputs for split, inputs in record.manifest.get("inputs", {}).items() if not split.startswith("valid")]
    return list(dict.fromkeys(one["path"] for one in inputs if one.get("format") == "hub" and one.get("path")))


def splits(record: Records) -> list[dict[str, Any]]:
    """name, rows, origin (names of files, without folders) and hash of every split."""
    inputs = record.manifest.get("inputs", {})
    return [
        {
            "name": name,
            "rows": f"{content['rows']:,}" if content.get("rows") is not None else "streamed",
            "origin": origin_of(inputs.get(name, {})),
            "hash": content["content_hash"][:16],
        }
        for name, content in record.manifest.get("splits", {}).items()
    ]


def origin_of(inputs: Mapping[str, Any]) -> str:
    """Where the texts of a corpus came from, without the folders of the machine."""
    path = inputs.get("path")
    parts: list[str] = []
    if path is not None:
        ours = str(path).startswith("controlled/") or inputs.get("format") == "hub" or may_be_hub_id(path)
        parts.append(str(path) if ours else Path(path).name)
    for side in ("source", "target"):
        given = inputs.get(side)
        parts += [Path(str(one)).name for one in ([given] if isinstance(given, str) else given or [])]
    parts += [f"{key} {inputs[key]}" for key in ("subset", "split") if inputs.get(key)]
    return ", ".join(parts) or "the built-in corpus"


def changes(record: Records) -> list[str]:
    """What was dropped or changed on the way into training, a sentence for each split and step."""
    found = []
    for step in record.manifest.get("steps", []):
        for what in ("dropped", "changed"):
            told = [f"{count:,} {reason}" for reason, count in (step.get(what) or {}).items() if count]
            if told:
                found.append(f"{step.get('split') or 'all'}, {step['name']}: {what}: {', '.join(told)}")
    return found


def training(record: Records, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts of the training as names and values."""
    run, summary = record.run, record.summary
    settings = run["settings"].get("training") or {}
    batching, device, chosen = run["settings"].get("batching") or {}, run.get("device") or {}, run.get("choices") or {}
    rows: list[tuple[str, str]] = []
    if not was_continued(record):
        rows.append(("shape", shape_of(config)))
    if summary:
        best = summary["best"]
        kinds = {"average": f"the average of {len(best['steps'])} checkpoints", "single": "the best checkpoint"}
        steps = best["steps"][0] if len(best["steps"]) == 1 else f"{best['steps'][0]} to {best['steps'][-1]}"
        rows += [
            ("weights", f"{summary['parameters']:,}; {kinds.get(best['kind'], 'the last ones')} (step {steps})"),
            (
                "length",
                f"{summary['steps']:,} updates, {summary['epochs']:.4g} epochs, {summary['tokens']:,} source and "
                "target tokens",
            ),
            ("time", f"{summary['seconds'] / 60:,.0f} minutes"),
        ]
    batch = chosen.get("batch_tokens") or batching.get("batch_tokens")
    accumulation = settings.get("gradient_accumulation_steps") or 1
    rows += [
        ("device", f"{device.get('processes', 1)} x {device.get('name') or device.get('type')}"),
        ("precision", str(chosen.get("mixed_precision") or "no")),
        ("update", f"{batch} padded tokens x {accumulation} x {device.get('processes', 1)} processes"),
        (
            "optimisation",
            f"{settings.get('optim')}, learning rate {chosen.get('learning_rate') or settings.get('learning_rate')}, "
            f"{_schedule(run['settings'])}, label smoothing {settings.get('label_smoothing_factor')}",
        ),
    ]
    return rows


def _schedule(settings: Mapping[str, Any]) -> str:
    """The course of the learning rate with what was set of it; records of earlier versions have it in `training`."""
    given = {name: value for name, value in (settings.get("schedule") or {}).items() if value is not None}
    training = settings.get("training") or {}
    if not given and "lr_scheduler_type" in training:
        given = {"name": training["lr_scheduler_type"], "warmup_steps": training.get("warmup_steps") or 0}
    return ", ".join(
        [str(given.pop("name", "schedule not recorded")), *(f"{name} {value}" for name, value in given.items())]
    )


def shape_of(config: Mapping[str, Any]) -> str:
    """Layers, width and vocabulary of a model."""
    layers = config.get("encoder_layers") or config.get("num_layers")
    decoder = config.get("decoder_layers") or config.get("num_decoder_layers") or layers
    vocabularies = [size for size in (config.get("source_vocab_size"), config.get("vocab_size")) if size]
    return (
        f"{layers} encoder and {decoder} decoder layers, width {config.get('d_model')}, "
        f"{' and '.join(f'{size:,}' for size in vocabularies)} subwords"
    )


def limits(record: Records, config: Mapping[str, Any]) -> list[str]:
    """What the model should not be trusted with, as far as its records tell."""
    found = []
    rows = record.manifest.get("splits", {}).get("train", {}).get("rows")
    corpus = f"{rows:,} sentence pairs" if rows is not None else "a stream of sentence pairs"
    if was_continued(record):
        found.append(
            f"It was trained further on {corpus} like those described above; it may have lost some of what it knew of "
            "other kinds of text."
        )
    else:
        found.append(
            f"It has seen {corpus} and nothing else: text of another kind is translated worse than the scores tell."
        )
    longest = (record.run["settings"].get("batching") or {}).get("max_source_length")
    if longest:
        found.append(
            f"It was trained on sentences of up to {longest} tokens, and translates each without its context."
        )
    for side in ("source", "target"):
        report = record.tokenizer_report.get(side) or {}
        if report.get("unknown_rate"):
            found.append(f"{report['unknown_rate']:.2%} of the {side} tokens are unknown to its tokenizer.")
    found.append("Names, numbers, negation, gender and offensive text were not tested on their own.")
    return found


def place(record: Records, folder: Path) -> str | None:
    """Where a model folder of the run lies, from where the run was started; None where only an absolute path tells,
    which is nobody else's."""
    output = record.run["settings"].get("output_dir")
    if not output or _is_absolute(output):
        return None
    return (Path(output) / folder.resolve().relative_to(record.folder.resolve().parent)).as_posix()


def _is_absolute(path: str) -> bool:
    return Path(path).is_absolute() or path.startswith("~")


def command(record: Records) -> str:
    """The command of the run, without the folders of the machine and where it wrote to."""
    words = list(record.run.get("environment", {}).get("command") or ["train.py"])
    shown = [f"python recipes/{Path(words[0]).name}"]
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if key.lstrip("-") in ("output_dir", "name", "resume"):
            continue
        shown.append(f"{key}={_shortened(value)}" if equals else _shortened(word))
    return " ".join(shown)


def _shortened(value: str) -> str:
    """A path of this machine as the name of its file, in lists too."""
    return re.sub(r"[^\s,\[\]=]*/([^\s,\[\]/=]+)", r"\1", value) if re.search(r"(^|[\[,])[~.]{0,2}/", value) else value


def versions(record: Records) -> dict[str, str]:
    packages = record.run.get("environment", {}).get("packages", {})
    return {name: packages[name] for name in _SHOWN_PACKAGES if name in packages}


def samples(record: Records, count: int) -> list[dict[str, str]]:
    """Sample translations of the last validation."""
    last = record.validations[-1] if record.validations else {}
    return [
        {name: one.get(name, "") for name in ("source", "translation", "reference")}
        for one in (last.get("samples") or [])[:count]
    ]


def search_of(score: Score) -> str:
    """How the translations behind a score were searched for."""
    decoding = score.system.decoding or {}
    if not decoding:
        return ""
    if decoding.get("do_sample"):
        return f"sampling, temperature {decoding.get('temperature')}"
    return f"beam search, {decoding.get('num_beams')} beams, length penalty {decoding.get('length_penalty')}"


def metrics_of(scores: Sequence[Score]) -> list[str]:
    """Ids of the metrics as the Hub has them: bleu, chrf, ter."""
    return list(dict.fromkeys(metric_id(score) for score in scores))


def metric_id(score: Score) -> str:
    return re.sub(r"[^a-z].*", "", score.name.lower())
