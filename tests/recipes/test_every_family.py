"""The whole way of a pretrained model of each family: trained, killed and resumed, scored, trained with an adapter,
merged, pushed, pulled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import families
import pytest
from hub_server import TOKEN, HubServer
from recipe_processes import run_recipe
from safetensors.torch import load_file
from settings_walk.inputs import make_varied
from settings_walk.keys import recipe_module

from hf_nmt.artifacts import hash_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# Their plain random weights translate everything into nothing.
SAY_NOTHING = ("nmt", "nmt_tags", "nllb", "t5", "mt5", "bart")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


# Some updates that change the model enough to be seen.
UPDATES = (
    "model.attn_implementation=eager", "training.max_steps=6", "training.save_steps=2", "training.eval_steps=6",
    "training.learning_rate=1e-2", "training.num_average_checkpoints=0",
)  # fmt: skip


def train(name: str, folder: Path, output: str, *more: str, **changes) -> Path:
    """Run recipes/train.py to its end or to its kill; the run folder."""
    argv = families.arguments(name, folder, *UPDATES, f"output_dir={folder / output}", *more)
    status = run_recipe(argv, folder / output, **changes)
    assert (status == 0) == (not changes), (folder / f"{output}.err").read_text()
    (run,) = (folder / output).iterdir()
    return run


def scores(name: str, folder: Path, model: Path) -> dict[str, float]:
    family = families.FAMILIES[name]
    argv = [
        f"model={model}", f"data.source_language={family.source}", f"data.target_language={family.target}",
        f"data.test.source={folder / 'validation.source'}", f"data.test.target={folder / 'validation.target'}",
        "device=cpu", "metrics.names=[chrf]", "metrics.num_bootstrap_samples=0", "decoding.max_target_length=20",
        f"output_dir={folder / 'predictions'}",
    ]  # fmt: skip
    assert recipe_module("validate").main(argv) == 0
    written = max((folder / "predictions").rglob("scores.json"), key=lambda path: path.stat().st_mtime_ns)
    return {score["name"]: score["value"] for score in json.loads(written.read_text())}


TRANSLATE = """
import json, sys
from transformers import pipeline

pipe = pipeline("translation", model="me/x", trust_remote_code=True, device="cpu", **json.loads(sys.argv[1]))
print(json.dumps([one["translation_text"] for one in pipe(json.loads(sys.argv[2]))]))
"""


def translations_elsewhere(model: str | Path, languages: dict[str, str], texts: list[str], **variables: str):
    """Translations by Transformers' own pipeline in another process, from a folder or through a Hub."""
    script = "import hf_nmt\n" * (model != "me/x") + TRANSLATE.replace('"me/x"', repr(str(model)))
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(languages), json.dumps(texts)],
        env={"PATH": "", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}, text=True,
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_the_whole_way(name, tmp_path):
    family = families.FAMILIES[name]
    model, tokenizer = families.load(name)
    if name in SAY_NOTHING:
        make_varied(model)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")

    # Trained, killed and resumed: the same bytes as without. Updates in parts: test_family_batches.
    killed = train(name, tmp_path, "killed", signal_at=5)
    assert run_recipe([f"resume={killed}"], tmp_path / "resumed") == 0, (tmp_path / "resumed.err").read_text()
    straight = train(name, tmp_path, "straight")
    weights = [hash_folder(run / "best")["model.safetensors"] for run in (killed, straight)]
    assert weights[0] == weights[1] and weights[0] != hash_folder(tmp_path / "model")["model.safetensors"]

    # Scored: the same as validation said while training.
    summary = json.loads((straight / "summary.json").read_text())
    validated = next(score["value"] for score in summary["scores"] if score["name"] == "chrF2")
    assert scores(name, tmp_path, straight)["chrF2"] == pytest.approx(validated)

    # An adapter: merged into best/, and alone on the model it was trained on.
    # Gently, so that there is something to translate.
    adapted = train(name, tmp_path, "adapted", "model.adapter.rank=4", "training.learning_rate=1e-4")
    merged = tmp_path / "merged"
    assert recipe_module("merge_adapter").main([str(adapted / "adapter"), f"output={merged}"]) == 0
    ours, best = load_file(merged / "model.safetensors"), load_file(adapted / "best" / "model.safetensors")
    assert ours.keys() == best.keys() == load_file(tmp_path / "model" / "model.safetensors").keys()
    assert all((ours[key] == best[key]).all() for key in ours)
    assert scores(name, tmp_path, adapted / "adapter") == pytest.approx(scores(name, tmp_path, adapted / "best"))

    # Pushed and pulled.
    texts = families.pairs(4, seed=9)[0]
    languages = {"src_lang": family.source, "tgt_lang": family.target} if family.targets else {}
    expected = translations_elsewhere(adapted / "best", languages, texts, HF_HUB_OFFLINE="1")
    with HubServer() as server:
        variables = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
        variables |= {"HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, str(ROOT / "recipes" / "push.py"), str(adapted), "repo=me/x"]
        pushed = subprocess.run(
            command, env={"PATH": "", "PYTHONPATH": str(ROOT), **variables}, capture_output=True, text=True,
            check=False, timeout=120, cwd=tmp_path,
        )  # fmt: skip
        assert pushed.returncode == 0, pushed.stderr
        assert translations_elsewhere("me/x", languages, texts, **variables) == expected
    assert any(expected) or name == "t5"  # whose translations test_pull compares
