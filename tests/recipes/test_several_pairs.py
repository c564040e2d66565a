"""Three planted tasks in one model: recipes/train.py learns them from unlike amounts of text, and validate.py,
translate.py and the pipeline do for each text what its target language asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers
import translation_tasks
from settings_walk.keys import recipe_module
from translation_tasks import TASKS, make_sources, translated

import hf_nmt  # noqa: F401
from hf_nmt.metrics import load_scores

pytestmark = pytest.mark.slow

SIZE = (
    "model.d_model=64", "model.encoder_ffn_dim=128", "model.decoder_ffn_dim=128", "model.encoder_layers=2",
    "model.decoder_layers=2", "model.dropout=0", "batching.batch_tokens=1024", "training.max_steps=450",
    "training.eval_steps=150", "training.save_steps=150", "training.learning_rate=3e-3", "schedule.warmup_steps=50",
    "schedule.name=cosine", "training.label_smoothing_factor=0", "decoding.num_beams=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with test sets of each pair, and the run."""
    folder = tmp_path_factory.mktemp("tasks")
    data = translation_tasks.write_pairs(folder, (1500, 800, 300), validation=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
        argv = [*data, "data.sampling_temperature=5", "--config", "tiny", f"output_dir={folder / 'runs'}", *SIZE]
        assert recipe_module("train").main(argv) == 0
    (run,) = (folder / "runs").iterdir()
    return folder, str(run / "best")


# Unseen texts whose three translations all differ.
SOURCES = [
    text for text in make_sources(120, seed=99) if len({translated(text, target) for target in TASKS}) == len(TASKS)
]


def agreement(text: str, source: str, target: str) -> int:
    """Words that a translation shares with what a task makes of the source, place by place."""
    return sum(one == other for one, other in zip(text.split(), translated(source, target).split(), strict=False))


def check(texts: list[str], sources: list[str], targets: list[str]) -> None:
    """All in the right language, as none is more like what another task makes; and nearly all right altogether."""
    assert len(texts) == len(sources) > 60
    right = 0
    for text, source, target in zip(texts, sources, targets, strict=True):
        agreements = {task: agreement(text, source, task) for task in TASKS}
        assert agreements[target] == max(agreements.values()) > 0, (source, text, target)
        right += text == translated(source, target)
    assert right / len(texts) > 0.9


def test_each_pair_is_scored_high_and_in_its_language(place, monkeypatch):
    folder, model = place
    monkeypatch.chdir(folder)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
    Path("test.xx").write_text("".join(f"{text}\n" for text in SOURCES))
    argv = [f"model={model}", "device=cpu", "metrics.num_bootstrap_samples=0", "metrics.names=[bleu,chrf]"]
    for target in TASKS:
        Path(f"test.{target}").write_text("".join(f"{translated(text, target)}\n" for text in SOURCES))
        pair = f"data.pairs.xx-{target}.test"
        argv += [f"{pair}.source=test.xx", f"{pair}.target=test.{target}"]
    assert recipe_module("validate").main(argv) == 0
    (scored,) = (path.parent for path in Path("predictions").rglob("scores.json"))
    found = {
        (score.data.domain, score.name): score.value
        for score in load_scores(scored / "scores.json")
        if score.data.domain
    }
    assert len(found) == 6
    for target in TASKS:
        assert found[f"xx-{target}", "chrF2"] > 95 and found[f"xx-{target}", "BLEU"] > 85
    texts = (scored / "translations.txt").read_text().splitlines()
    check(texts, SOURCES * len(TASKS), [target for target in TASKS for _ in SOURCES])


def test_rows_are_translated_by_their_own_target_language(place, tmp_path):
    _, model = place
    targets = [[*TASKS][number % len(TASKS)] for number in range(len(SOURCES))]
    rows = (json.dumps({"source": text, "target_language": code}) for text, code in zip(SOURCES, targets, strict=True))
    (tmp_path / "rows.jsonl").write_text("".join(f"{row}\n" for row in rows))
    given = [f"input={tmp_path / 'rows.jsonl'}", f"output={tmp_path / 'out'}"]
    assert recipe_module("translate").main([f"model={model}", "device=cpu", *given]) == 0
    check((tmp_path / "out").read_text().splitlines(), SOURCES, targets)


@pytest.mark.parametrize("target", TASKS)
def test_the_pipeline_is_told_the_target_language(place, target):
    _, model = place
    pipe = transformers.pipeline("translation", model=model, trust_remote_code=True, device="cpu")
    texts = [found["translation_text"] for found in pipe(SOURCES, tgt_lang=target)]
    check(texts, SOURCES, [target] * len(SOURCES))
