"""Steps over a corpus: counts, rejects, several workers, a run that was broken off, stories of records."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from settings_walk.keys import recipe_module

from hf_nmt.cleaning.engine import LocalEngine
from hf_nmt.cleaning.filters import EmptyAndCopies, Lengths
from hf_nmt.cleaning.pipeline import NamedStep, clean, explain, read_table, write_table
from hf_nmt.cleaning.settings import StepChoice, default_steps
from hf_nmt.cleaning.step import CorpusStep, Outcome, Step
from hf_nmt.data.readers import Corpus, Pair
from hf_nmt.data.records import SCHEMA, tables_of
from hf_nmt.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


class Shorten(Step):
    """Cuts sources to so many characters."""

    characters: int = 5

    def apply(self, pairs, state):
        return Outcome.changing(pairs, {"source": pc.utf8_slice_codeunits(pairs["source"], 0, self.characters)})


class Rare(CorpusStep):
    """Drops pairs whose target is there once only."""

    def measure(self, pairs):
        return pa.table({"target": pairs["target"]})

    def decide(self, measured, state):
        counts = Counter(text for path in measured for text in read_table(path)["target"].to_pylist())
        once = sorted(text for text, count in counts.items() if count == 1)
        write_table(state / "once.arrow", pa.table({"text": pa.array(once, pa.string())}))

    def apply(self, pairs, state):
        once = read_table(state / "once.arrow")["text"].combine_chunks()
        return Outcome.dropping(pairs, {"rare": pc.is_in(pairs["target"], value_set=once)})


STEPS = [
    NamedStep("empty", EmptyAndCopies()),
    NamedStep("shorten", Shorten()),
    NamedStep("rare", Rare()),
    NamedStep("lengths", Lengths(min_characters=2)),
]


def tables(folder: Path, count: int = 25, of: int = 4) -> list[Path]:
    rows = [
        Pair(n, f"{'lang ' * (n % 5)}{n}" if n % 7 else "", ("a", "bb", "ccc", str(n))[n % 4], None, {})
        for n in range(count)
    ]
    paths = []
    folder.mkdir(parents=True, exist_ok=True)
    for number, table in enumerate(tables_of(Corpus("rows", "line", iter(rows)), {}, rows=of)):
        write_table(path := folder / f"{number}.arrow", table)
        paths.append(path)
    return paths


def rows_of(paths: list[Path]) -> list[dict]:
    return [row for path in paths for row in read_table(path).to_pylist()]


@pytest.fixture
def cleaned(tmp_path):
    return clean(tables(tmp_path / "in"), STEPS, tmp_path / "work", identity=1, engine=LocalEngine(1))


def test_every_pair_is_kept_or_has_a_reason(tmp_path, cleaned):
    before = Counter(row["id"] for row in rows_of(tables(tmp_path / "again")))
    kept, gone = rows_of(cleaned.kept), rows_of(cleaned.rejected)
    assert Counter(row["id"] for row in kept + gone) == before and kept and gone
    assert all(row["step"] and row["reason"] for row in gone)
    counted = Counter({(step.name, reason): n for step in cleaned.steps for reason, n in step.dropped.items()})
    assert counted == Counter((row["step"], row["reason"]) for row in gone)
    assert {step for step, _ in counted} == {"empty", "rare", "lengths"}


def test_the_steps_did_what_they_say(tmp_path, cleaned):
    source = {row["id"]: row for row in rows_of(tables(tmp_path / "again"))}
    present = {name: row for name, row in source.items() if row["source"]}
    targets = Counter(row["target"] for row in present.values())
    expected = {
        name: row["source"][:5]
        for name, row in present.items()
        if targets[row["target"]] > 1 and len(row["source"][:5]) > 1 and len(row["target"]) > 1
    }
    assert {row["id"]: row["source"] for row in rows_of(cleaned.kept)} == expected
    changed = {step.name: step.changed for step in cleaned.steps}
    assert changed["shorten"] == {"text": sum(len(row["source"]) > 5 for row in present.values())}
    assert not changed["rare"]


def test_a_step_that_sees_the_corpus_has_all_its_time(tmp_path, cleaned):
    reports = [json.loads(path.read_text()) for path in (tmp_path / "work").rglob("*.json")]
    measured = sum(report["measure"]["seconds"] for report in reports if "measure" in report)
    applied = sum(report["rare"]["seconds"] for report in reports if "rare" in report)
    assert cleaned.seconds["rare"] > measured + applied > applied


def test_workers_change_nothing(tmp_path, cleaned):
    several = clean(tables(tmp_path / "in"), STEPS[:2], tmp_path / "two", identity=1, engine=LocalEngine(2))
    alone = clean(tables(tmp_path / "in"), STEPS[:2], tmp_path / "one", identity=1, engine=LocalEngine(1))
    assert [path.read_bytes() for path in several.kept] == [path.read_bytes() for path in alone.kept]
    assert several.steps == alone.steps


def test_a_broken_off_run_goes_on_where_it_stopped(tmp_path, cleaned, monkeypatch):
    paths, work = tables(tmp_path / "in"), tmp_path / "broken"
    applied = []
    apply = Lengths.apply

    def failing(step, pairs, state):
        applied.append(len(pairs))
        if len(applied) == 3:
            raise KeyboardInterrupt
        return apply(step, pairs, state)

    monkeypatch.setattr(Lengths, "apply", failing)
    with pytest.raises(KeyboardInterrupt):
        clean(paths, STEPS, work, identity=1, engine=LocalEngine(1))
    assert not list(work.rglob("*partial*"))
    first = len(applied)
    again = clean(paths, STEPS, work, identity=1, engine=LocalEngine(1))
    assert (
        first == 3
        and len(applied) == 1 + sum(len(read_table(path)) > 0 for path in cleaned.kept[:0]) + len(applied) - 1
    )
    assert len(applied) - first <= len(paths) - 2
    assert rows_of(again.kept) == rows_of(cleaned.kept) and again.steps == cleaned.steps


def test_other_settings_are_not_taken_for_these(tmp_path, cleaned):
    other = [*STEPS[:-1], NamedStep("lengths", Lengths(min_characters=4))]
    again = clean(tables(tmp_path / "in"), other, tmp_path / "work", identity=1, engine=LocalEngine(1))
    assert len(rows_of(again.kept)) < len(rows_of(cleaned.kept))
    elsewhere = clean(tables(tmp_path / "few", 8), STEPS, tmp_path / "work", identity=2, engine=LocalEngine(1))
    assert len(rows_of(elsewhere.kept)) < len(rows_of(cleaned.kept))


def test_stories_agree_with_what_happened(tmp_path, cleaned):
    paths = tables(tmp_path / "in")
    for row in rows_of(cleaned.rejected):
        told = list(explain(row["id"], paths, STEPS, tmp_path / "work", identity=1))
        assert told[-1] == f"{row['step']}: dropped, {row['reason']}"
    for row in rows_of(cleaned.kept):
        assert list(explain(row["id"], paths, STEPS, tmp_path / "work", identity=1))[-1] == "kept to the end"
    with pytest.raises(DataError, match="no record that was read has the id 0"):
        list(explain("0", paths, STEPS, tmp_path / "work", identity=1))


def test_the_story_of_equal_records_says_how_many_there_are(tmp_path):
    paths = [*tables(tmp_path / "in"), *tables(tmp_path / "again")]
    cleaned = clean(paths, STEPS, tmp_path / "work", identity=3, engine=LocalEngine(1))
    row = rows_of(cleaned.kept)[0]
    assert next(explain(row["id"], paths, STEPS, tmp_path / "work", identity=3)).startswith("read 2 times, ")


def test_nothing_is_a_corpus_too(tmp_path):
    write_table(tmp_path / "none.arrow", SCHEMA.empty_table())
    cleaned = clean([tmp_path / "none.arrow"], STEPS, tmp_path / "work", identity=1, engine=LocalEngine(1))
    assert rows_of(cleaned.kept) == [] and [step.kept for step in cleaned.steps] == [0, 0, 0, 0]


@pytest.mark.parametrize("recipe", ["prepare_data", "check_data"])
def test_text_is_cleaned_without_torch_and_datasets(recipe):
    """Their import takes longer than all steps over a small corpus."""
    told = f"import runpy, sys; runpy.run_path('recipes/{recipe}.py'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, check=True, capture_output=True, text=True)
    assert "pyarrow" in (loaded := done.stdout.split()) and not {"torch", "datasets"} & {*loaded}


def test_arrays_are_made_without_pandas(tmp_path):
    """Arrow imports it to look at the first array; a third of a second, where it is installed at all."""
    script = (
        "import sys; from hf_nmt.cleaning.engine import spare_pandas; spare_pandas(); import pyarrow as pa; "
        "table = pa.table({'a': [1, None]}); print('pandas' in sys.modules, table['a'].to_pandas().isna().tolist())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "False [False, True]"
    (tmp_path / "a.tsv").write_text("de\ten\nHaus 1.\tHouse 1.\n", encoding="utf-8")
    given = ["source_language=de", "target_language=en", f"inputs.a.path={tmp_path / 'a.tsv'}", "num_workers=1"]
    folders = [f"output_dir={tmp_path / 'out'}", f"work_dir={tmp_path / 'work'}"]
    command = [sys.executable, "-X", "importtime", "recipes/prepare_data.py", *given, *folders]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "pyarrow.lib" in done.stderr and "pandas.core" not in done.stderr


def test_the_list_of_steps_is_printed_as_it_is_written():
    for choice in default_steps():
        printed = choice.model_dump(mode="json")
        assert list(printed) == [choice.kind] and StepChoice.model_validate(printed) == choice


def test_the_help_on_the_steps_tells_of_every_kind(capsys):
    with pytest.raises(SystemExit):
        recipe_module("prepare_data").main(["--help", "steps"])
    told = capsys.readouterr().out
    assert "steps[].near_duplicates.threshold" in told and "[{'mojibake': {}}" in told


def test_what_steps_changed_is_logged(cleaned, caplog):
    caplog.set_level("INFO")
    cleaned.tell()
    assert "shorten: " in caplog.text and "; changed: " in caplog.text
