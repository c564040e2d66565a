"""recipes/translate.py on rows that name their languages."""

from __future__ import annotations

import json
from pathlib import Path

import families
import pytest
import torch
from settings_walk.keys import recipe_module

from hf_nmt.errors import ConfigError
from hf_nmt.generation import files

SCRIPT = Path(__file__).parents[2] / "recipes" / "translate.py"


@pytest.fixture(scope="module")
def recipe():
    return recipe_module("translate")


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    """A model of random weights for several target languages, and rows to translate."""
    folder = tmp_path_factory.mktemp("tagged")
    model, tokenizer = families.load("nmt_tags")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.25, generator=generator)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    texts = families.pairs(40, seed=4)[0]
    rows = [{"source": text, "target_language": (None, "en", "fr", "zh")[row % 4]} for row, text in enumerate(texts)]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    lines = (f"{row['target_language'] or ''}\t{row['source']}\n" for row in rows)
    (folder / "rows.tsv").write_text("target_language\tsource\n" + "".join(lines))
    return folder, rows


def translations_by_run(recipe, folder, rows, options, tmp_path):
    """Of each row, by a run for each target language; rows that name none are in French."""
    texts = {}
    (tmp_path / "plain").write_text("".join(f"{row['source']}\n" for row in rows))
    for target in ("en", "fr", "zh"):
        output = tmp_path / f"out.{target}"
        recipe.main([f"input={tmp_path / 'plain'}", f"output={output}", f"target_language={target}", *options])
        texts[target] = output.read_text().splitlines()
    assert len({tuple(lines) for lines in texts.values()}) == 3
    return [texts[row["target_language"] or "fr"][number] for number, row in enumerate(rows)]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.tsv"])
def test_each_row_is_translated_into_its_own_language_even_if_interrupted(recipe, tagged, tmp_path, monkeypatch, name):
    folder, rows = tagged
    options = [f"model={folder / 'model'}", "device=cpu", "decoding.num_beams=1", "decoding.max_target_length=8"]
    expected = translations_by_run(recipe, folder, rows, options, tmp_path)
    mixed = [f"input={folder / name}", f"output={tmp_path / 'mixed'}", "target_language=fr", *options]
    write, windows = files.PartialOutput.write, []

    def stop_at_second(self, lines, text, statistics):
        windows.append([line.text for line in lines])
        if len(windows) == 2:
            raise KeyboardInterrupt
        write(self, lines, text, statistics)

    monkeypatch.setattr(files.PartialOutput, "write", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        recipe.main(mixed)
    recipe.main(mixed)
    assert windows[1] == windows[2] and len(windows[0]) == 16, "it goes on after the first window"
    assert (tmp_path / "mixed").read_text().splitlines() == expected
    record = json.loads((tmp_path / "mixed.json").read_text())
    assert record["input"]["lines"] == 40 and record["input_format"] == name.partition(".")[2]
    recipe.main([*mixed[:1], f"output={tmp_path / 'rich'}", "output_format=jsonl", *mixed[2:]])
    found = [json.loads(line) for line in (tmp_path / "rich").read_text().splitlines()]
    assert [row.get("target_language") for row in found] == [row["target_language"] for row in rows]
    assert [row["source"] for row in found] == [row["source"] for row in rows]


def test_rows_in_a_language_that_the_model_lacks_are_told_before_the_first_line(recipe, tagged, tmp_path):
    folder, _ = tagged
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"source": "a", "target_language": code}) + "\n" for code in ("en", "cs", "fr", "de"))
    )
    given = [f"model={folder / 'model'}", f"input={tmp_path / 'rows.jsonl'}", "device=cpu"]
    for output in ([], [f"output={tmp_path / 'out'}"]):
        with pytest.raises(ConfigError) as error:
            recipe.main([*given, *output])
        assert [finding.partition(" was asked")[0] for finding in error.value.findings] == [
            "input: The target language 'cs'", "input: The target language 'de'",
        ]  # fmt: skip
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.partial*"))
    (tmp_path / "rows.jsonl").write_text('{"source": "a", "target_language": "en"}\n{"source": "a"}\n')
    with pytest.raises(ConfigError, match="input: This model has several target languages; choose one of en, fr, zh"):
        recipe.main(given)
