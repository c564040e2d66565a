"""Model cards: README.md of a model folder, written from the records of its run.

A card ends with a comment that holds the hash of its text. So a card that a person has changed since is told from one
that can be written anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from hf_nmt.artifacts import hash_model, write_text
from hf_nmt.cards import facts
from hf_nmt.config import fingerprint
from hf_nmt.errors import NmtError
from hf_nmt.metrics import Score, load_scores
from hf_nmt.run_records import Records

CARD = "README.md"
_MARK = re.compile(r"\n<!-- written by hf_nmt, sha256 ([0-9a-f]{64}) -->\n?$")
_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$])")


@dataclasses.dataclass(frozen=True)
class CardChoices:
    """What a person decides about a card.

    Attributes:
        repo_id: `owner/name` on the Hub, for the examples; None where the model was not pushed yet.
        license: id of the Hub's list, such as "cc-by-4.0"; None leaves it out.
        base_model: id of the model that was trained further, where the run knows it as a folder only.
        num_samples: sample translations of the last validation to show. They are sentences of the validation text.
        scores: more of them, of test sets: folders that recipes/validate.py wrote.
    """

    repo_id: str | None = None
    license: str | None = None
    base_model: str | None = None
    num_samples: int = 0
    scores: Sequence[Path | str] = ()


def write_card(folder: Path | str, choices: CardChoices | None = None) -> None:
    """Write the card of a model into its folder, unless a person has written or changed the one that is there.

    Args:
        folder: `best/` or `adapter/` of a run folder.

    Raises:
        NmtError: the folder is not of a run, or the card cannot be written.
    """
    path = Path(folder) / CARD
    if not path.is_file() or is_ours(path.read_text(encoding="utf-8")):
        write_text(path, make_card(folder, choices or CardChoices()))


def is_ours(text: str) -> bool:
    """Whether a card is as it was written: not by a person, and not changed by one."""
    mark = _MARK.search(text)
    return mark is not None and mark[1] == _hash(text[: mark.start()])


def run_of(folder: Path | str) -> Path | None:
    """The run folder that a model folder lies in; None where there is none."""
    parent = Path(folder).resolve().parent
    return parent if (parent / "run.json").is_file() else None


def make_card(folder: Path | str, choices: CardChoices) -> str:
    """The card of a model in a run folder, as text: YAML metadata, Markdown, and the mark of its hash.

    Raises:
        NmtError: the folder is not of a run, or scores are not of this model.
    """
    folder = Path(folder)
    run_folder = run_of(folder)
    if run_folder is None:
        raise NmtError(f"{folder}: a card is written from the records of a run, and this folder lies in none.")
    record = facts.read_run(run_folder)
    config = _json_of(folder / "config.json") or {}
    adapter = _json_of(folder / "adapter_config.json")
    scores = [*map(_on_validation, record.summary.get("scores", [])), *_given_scores(folder, choices.scores)]
    pairs = facts.language_pairs(record, config)
    base = choices.base_model or facts.base_model(record)
    title = choices.repo_id.rpartition("/")[2] if choices.repo_id else record.run["name"]
    metadata = _metadata(record, scores, pairs, base, title, adapter is not None, choices)
    body = _environment().get_template("model_card.md.jinja").render(
        title=title,
        repo=choices.repo_id or facts.place(record, folder),
        what=_what(record, config, pairs, adapter),
        base=base or (None if choices.repo_id else facts.base_folder(record)),
        origin=_origin(record, base),
        adapter=adapter,
        languages_in_call=_languages_in_call(pairs, config),
        decoding=_search(_json_of(folder / "generation_config.json") or {}),
        scores=[_row(score) for score in scores],
        signatures=[{"name": name, "signature": text} for name, text in {(s.name, s.signature): 0 for s in scores}],
        confidence=f"{(record.run['settings'].get('metrics') or {}).get('confidence', 0.95):.0%}",
        on_validation=any(score.data.split == "validation" for score in scores),
        searches=list(dict.fromkeys(filter(None, map(facts.search_of, scores)))),
        samples=facts.samples(record, choices.num_samples),
        splits=facts.splits(record),
        changes=facts.changes(record),
        training=facts.training(record, config),
        limits=facts.limits(record, config),
        command=facts.command(record).replace("```", "'''"),
        fingerprint=record.run["fingerprint"],
        seed=record.run["seeds"].get("seed"),
        versions=facts.versions(record),
        python=record.run["environment"]["python"],
        commit=record.run["environment"].get("commit"),
    )  # fmt: skip
    body = re.sub(r"\n{3,}", "\n\n", body).rstrip()
    text = f"---\n{metadata.to_yaml()}\n---\n\n{body}\n"
    return f"{text}\n<!-- written by hf_nmt, sha256 {_hash(text)} -->\n"


def _hash(text: str) -> str:
    return hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()


def _json_of(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _on_validation(score: Any) -> Score:
    """A score of a run's summary, which is always of its validation text."""
    score = Score.model_validate(score)
    return score.model_copy(update={"data": score.data.model_copy(update={"split": "validation"})})


def _given_scores(folder: Path, folders: Sequence[Path | str]) -> list[Score]:
    """The scores of test sets, which must be of this model."""
    found = []
    ours = fingerprint(hash_model(folder))
    for given in folders:
        scores = load_scores(Path(given) / "scores.json")
        for score in scores:
            if score.system.hash != ours:
                raise NmtError(
                    f"{given}: these scores are of another model (hash {score.system.hash}) than {folder} (hash "
                    f"{ours}). Score this one: recipes/validate.py model={folder} ..."
                )
        found += scores
    return found


def _metadata(
    record: Records,
    scores: Sequence[Score],
    pairs: Sequence[tuple[str, str]],
    base: str | None,
    title: str,
    adapter: bool,
    choices: CardChoices,
) -> ModelCardData:
    short, whole = facts.card_languages(code for pair in pairs for code in pair)
    datasets = facts.hub_datasets(record)
    results = [
        EvalResult(
            task_type="translation",
            task_name=f"Translation {' '.join('-'.join(pair) for pair in pairs)}".strip(),
            dataset_type=datasets[0] if datasets and score.data.split == "validation" else "custom",
            dataset_name=_data_of(score),
            dataset_split=score.data.split,
            metric_type=facts.metric_id(score),
            metric_name=score.name,
            metric_value=round(score.value, 2),
            metric_args={"signature": score.signature},
        )
        for score in scores
        if score.data.domain is None and score.value is not None
    ]
    more: dict[str, Any] = {"language_bcp47": whole} if whole else {}
    return ModelCardData(
        language=short or None,
        license=choices.license,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="translation",
        tags=["translation", "hf_nmt"],
        base_model=base,
        datasets=datasets or None,
        metrics=facts.metrics_of(scores) or None,
        model_name=title,
        eval_results=results or None,
        **more,
    )


def _data_of(score: Score) -> str:
    """What a score was measured on, for a person: never a path of the machine."""
    data = score.data
    name = Path(data.id).name if data.id else f"{data.split or 'unnamed'} text"
    return f"{name}, {data.domain}" if data.domain else name


def _row(score: Score) -> dict[str, Any]:
    interval = f"{score.interval[0]:.2f} to {score.interval[1]:.2f}" if score.interval else "not measured"
    digest = f" ({score.data.hash[:16]})" if score.data.hash else ""
    return {
        "name": score.name, "value": score.text, "interval": interval, "n": f"{score.n:,}",
        "data": _data_of(score) + digest,
    }  # fmt: skip


def _what(record: Records, config: dict[str, Any], pairs: Sequence[tuple[str, str]], adapter: Any) -> str:
    kind = config.get("model_type", "")
    kind = "encoder-decoder transformer" if kind == "hf_nmt" else kind
    what = f"An adapter ({adapter.get('peft_type', 'LORA')})" if adapter else f"A translation model ({kind})"
    told = " and ".join(f"from {source} to {target}" for source, target in pairs)
    return f"{what} that translates {told}.".replace("  ", " ")


def _origin(record: Records, base: str | None) -> str:
    """What the training began with, as a sentence; empty where it began with new weights."""
    if not facts.was_continued(record):
        return ""
    digest = (record.run.get("pretrained") or {}).get("hash")
    known = f" whose files have the hash {code_span(digest)}" if digest else ""
    return f" It continues {code_span(base) if base else f'a model{known}'}."


def _languages_in_call(pairs: Sequence[tuple[str, str]], config: dict[str, Any]) -> str:
    """Where a model has languages to choose from, they are named in the example."""
    if not pairs or (len(pairs) < 2 and config.get("model_type") not in ("m2m_100", "mbart")):
        return ""
    return f", src_lang={json.dumps(pairs[0][0])}, tgt_lang={json.dumps(pairs[0][1])}"


def _search(generation: dict[str, Any]) -> str:
    """What the model's own generation settings do."""
    if generation.get("do_sample"):
        return "sampling"
    beams = generation.get("num_beams") or 1
    return f"{beams} beams" if beams > 1 else "one beam (greedy)"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hf_nmt.cards", "."), undefined=jinja2.StrictUndefined, autoescape=False,
        trim_blocks=False, lstrip_blocks=False, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"text": plain_text, "cell": table_cell, "code": code_span, "quoted": json.dumps}
    return environment


def plain_text(value: Any) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(str(value).split()), quote=False))


def table_cell(value: Any) -> str:
    """Text for a cell of a table; an empty one is a blank."""
    return plain_text(value) or " "


def code_span(value: Any) -> str:
    """Text as code, whatever ticks are in it."""
    text = " ".join(str(value).split())
    ticks = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"
