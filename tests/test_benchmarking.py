"""What benchmarks keep of a run, and tell of where they were measured."""

from __future__ import annotations

from toy_training import make_run

from hf_nmt import benchmarking
from hf_nmt.artifacts import write_json


def test_the_facts_of_a_run_hold_the_sections_that_it_has(tmp_path):
    sections = {"schedule": {"name": "cosine"}, "objective": {"ema": {"decay": 0.9}}, "watch": {"max_skips": 3}}
    with make_run(tmp_path, **sections, output_dir="/secret") as run:
        pass
    write_json(run.folder / "summary.json", {"steps": 2})
    metrics = '{"step": 1, "name": "eval_bleu_de-en", "value": 3.5}\n{"step": 2, "name": "other", "value": 0}\n'
    (run.folder / "metrics.jsonl").write_text(metrics)
    facts = benchmarking.run_facts(run.folder)
    assert facts["settings"] == {"seed": 1} | sections and facts["summary"] == {"steps": 2}
    assert facts["curves"]["eval_bleu_de-en"] == [[1, 3.5]] and "other" not in facts["curves"]


def test_a_page_tells_every_processor_once_and_the_versions():
    told = [("one, 2 cores", "1.0"), ("another, 4 cores", "1.0"), ("one, 2 cores", "1.0")]
    results = [{"environment": {"processor": name, "versions": {"torch": number, "x": "2"}}} for name, number in told]
    assert benchmarking.where_measured(results) == ("another, 4 cores; one, 2 cores", "torch 1.0, x 2")
