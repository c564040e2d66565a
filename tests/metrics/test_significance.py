from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from hf_nmt.errors import ConfigError, DataError
from hf_nmt.metrics import ComparisonSettings, compare, comparison_table


@pytest.mark.parametrize(("test", "option", "samples"), [("bootstrap", "bs", 200), ("randomization", "ar", 300)])
def test_equal_to_the_command_line(test, option, samples, good, worse, references, tmp_path):
    files = {"reference.txt": [row[0] for row in references], "worse.txt": worse, "good.txt": good}
    for name, lines in files.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    command = [sys.executable, "-m", "sacrebleu", "reference.txt", "-i", "worse.txt", "good.txt"]
    # Text, since sacreBLEU 2.6 cannot write its bootstrap of chrF and TER as JSON.
    command += ["-m", "bleu", "chrf", "ter", f"--paired-{option}", f"--paired-{option}-n", str(samples)]
    command += ["-w", "9", "-f", "text", "--no-color", "--quiet"]
    environment = os.environ | {"SACREBLEU_SEED": "11"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    settings = ComparisonSettings(paired_test=test, num_paired_samples=samples, seed=11)
    found = compare({"good": good, "worse": worse}, [row[:1] for row in references], settings, "en", baseline="worse")
    assert [item.name for item in found] == ["BLEU", "chrF2", "TER"]
    _, scores, p_values = re.search(r"(baseline|good)\.txt ([^\n]*)\n([^\n]*)", done.stdout, re.IGNORECASE).groups()
    cells = [cell.strip() for cell in scores.split("\u2502")[1:4]]
    p_cells = [cell.strip(" *()p=") for cell in p_values.split("\u2502")[2:5]]
    for item, cell, p_cell in zip(found, cells, p_cells, strict=True):
        assert (item.system, item.baseline, item.n) == ("good", "worse", 40)
        if test == "bootstrap":
            assert cell == f"{item.value:.9f} ({item.mean:.9f} \u00b1 {item.half_width:.9f})"
        else:
            assert cell == f"{item.value:.9f}" and item.mean is None and item.half_width is None
        assert p_cell == f"{item.p_value:.4f}"
        assert re.search(rf"{re.escape(item.name)} +{re.escape(item.signature)}", done.stdout)


def test_a_planted_difference_is_found_and_none_where_there_is_none(good, worse, references):
    settings = ComparisonSettings(names=["chrf"], num_paired_samples=300)
    references = [row[:1] for row in references]
    (item,) = compare({"good": good, "worse": worse}, references, settings, "en", baseline="worse")
    assert item.p_value < 0.01 and item.value > item.baseline_value
    # sacreBLEU's formula calls a system significantly different from itself: 1 / (samples + 1).
    (item,) = compare({"a": good, "b": list(good)}, references, settings, "en", baseline="a")
    assert item.p_value == 1 and item.value == item.baseline_value


def test_deterministic_and_leaves_the_environment_alone(good, worse, references, monkeypatch):
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    systems = {"good": good, "worse": worse}
    settings = ComparisonSettings(names=["bleu"], num_paired_samples=100, seed=3)
    first = compare(systems, references, settings, "en", baseline="worse")
    monkeypatch.setenv("SACREBLEU_SEED", "77")
    assert compare(systems, references, settings, "en", baseline="worse") == first
    assert os.environ["SACREBLEU_SEED"] == "77"
    other = settings.model_copy(update={"seed": 4})
    assert compare(systems, references, other, "en", baseline="worse") != first


def test_three_systems_and_the_table(good, worse, references):
    settings = ComparisonSettings(names=["bleu", "chrf"], num_paired_samples=100)
    systems = {"one": worse, "two": good, "three": [row[0] for row in references]}
    found = compare(systems, references, settings, "en", baseline="one")
    assert [(item.name, item.system) for item in found] == [
        ("BLEU", "two"), ("BLEU", "three"), ("chrF2", "two"), ("chrF2", "three"),
    ]  # fmt: skip
    lines = comparison_table(found).splitlines()
    assert lines[0].split() == ["metric", "system", "score", "baseline", "difference", "p"]
    assert lines[2].split()[:3] == ["BLEU", "three", "100.00"]
    assert sum("seed:12345" in line for line in lines) == 2


def test_refusals(good, references):
    with pytest.raises(ConfigError, match="baseline 'x' is not among the systems: 'a'"):
        compare({"a": good}, references, baseline="x")
    with pytest.raises(ConfigError, match="no system beside the baseline 'a'"):
        compare({"a": good}, references, baseline="a")
    with pytest.raises(DataError, match="39 predictions for 40"):
        compare({"a": good, "b": good[1:]}, references, baseline="a")
