"""Cases of the recipes that look at runs; see cases.py."""

from __future__ import annotations

from settings_walk.keys import Case

COMPARE_RUNS = {
    "runs": Case("[inputs/run]", "stdout"),
    "scores": Case("[inputs/other_evaluations]", "stdout"),
    "output": Case("elsewhere", "files/elsewhere"),
    "overwrite": Case("true", "files/old/comparison.json", ("output=old",)),
}

TOLD = "files/reported/training_report.json"

REPORT_RUN = {
    "run": Case("inputs/edited_run", TOLD),
    "baseline": Case("inputs/edited_run", TOLD),
    "scores": Case("[inputs/other_evaluations]", TOLD),
}

PROFILE_RUN = {
    "run": Case("inputs/unfinished", "profile", ("train_config=null",)),
    "train_config": Case("inputs/wider_train.yaml", "profile"),
    "overrides": Case("[model.encoder_ffn_dim=16]", "profile"),
    "warmup_updates": Case("2", "profile"),
    "updates": Case("2", "profile"),
    "peak_tflops": Case("1", "profile"),
    "batch_sizes": Case("[1,2]", "profile"),
    "num_sentences": Case("1", "profile"),
    "trace": Case("true", "written"),
    "output": Case("elsewhere", "written"),
    "overwrite": Case("true", "written", ("output=old",)),
}
