"""What was pushed works where it is pulled: in another process, with and without hf_nmt, as it did before."""

from __future__ import annotations

import json
from pathlib import Path

import families
import pytest
import torch
from huggingface_hub import ModelCard
from settings_walk.inputs import make_varied, write_adapter
from transformers import AutoModelForSeq2SeqLM, pipeline

import hf_nmt
from hf_nmt.translators import load_model

ROOT = Path(__file__).parents[2]
TEXTS = ["balo delo kalo.", "felo nalo, tale. talo sale belo!", ""]
# Nothing of hf_nmt can be imported, however it is installed.
FORBID = """
import sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_nmt":
            raise ModuleNotFoundError(f"{name} is forbidden here", name=name)

sys.meta_path.insert(0, Forbid())
"""
TRANSLATE = """
import json
from transformers import pipeline

for name, options in {calls!r}:
    pipe = pipeline("translation", model=name, device="cpu", **options)
    print(json.dumps([one["translation_text"] for one in pipe({texts!r}, num_beams=2, max_new_tokens=12)]))
"""


def saved(name: str, folder: Path) -> Path:
    """A model of a family whose translations are not alike."""
    model, tokenizer = families.load(name)
    torch.manual_seed(4)
    make_varied(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def translations(folder: Path, **languages: str) -> list[str]:
    pipe = pipeline("translation", model=str(folder), device="cpu", **languages)
    texts = [one["translation_text"] for one in pipe(TEXTS, num_beams=2, max_new_tokens=12)]
    assert any(texts)
    return texts


def pushed(names: list[str], folder: Path) -> tuple[list[tuple[str, dict[str, str]]], list[list[str]]]:
    """Models of these families, pushed to `me/<name>`: the ids with their languages, and the translations here."""
    calls, expected = [], []
    for name in names:
        family = families.FAMILIES[name]
        languages = {"src_lang": family.source, "tgt_lang": family.target} if family.targets else {}
        saved(name, folder / name)
        expected.append(translations(folder / name, **languages))
        hf_nmt.push_to_hub(folder / name, f"me/{name}")
        calls.append((f"me/{name}", languages))
    return calls, expected


def pulled(elsewhere, calls, *, with_package: bool) -> list[list[str]]:
    """Translations of repositories in another process."""
    script = TRANSLATE.format(texts=TEXTS, calls=calls)
    if with_package:
        script = "import hf_nmt\n" + script
    else:
        script = FORBID + script + "assert not [name for name in sys.modules if name.split('.')[0] == 'hf_nmt']"
    done = elsewhere(["-c", script], with_package=with_package)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def trusting(calls):
    return [(name, {"trust_remote_code": True, **languages}) for name, languages in calls]


def test_models_translate_where_hf_nmt_is_not_installed(hub, elsewhere, tmp_path):
    """Ours, and families whose translation pipeline Transformers 5 no longer has: they bring it."""
    calls, expected = pushed(["nmt", "marian", "m2m_100"], tmp_path)
    assert pulled(elsewhere, trusting(calls), with_package=False) == expected


@pytest.mark.slow
def test_every_family_translates_where_hf_nmt_is_not_installed(hub, elsewhere, tmp_path):
    calls, expected = pushed([*families.FAMILIES], tmp_path)
    assert len(calls) > 8
    assert pulled(elsewhere, trusting(calls), with_package=False) == expected


def test_where_hf_nmt_is_installed_no_trust_is_needed(hub, elsewhere, tmp_path):
    calls, expected = pushed(["nmt", "marian"], tmp_path)
    assert pulled(elsewhere, calls, with_package=True) == expected


def test_an_adapter_is_put_on_the_model_that_it_names(hub, tmp_path):
    """As the card shows it, with peft alone."""
    peft = pytest.importorskip("peft")
    write_adapter(tmp_path / "adapter", saved("nmt", tmp_path / "base"), seed=3)
    hf_nmt.push_to_hub(tmp_path / "base", "me/base")
    hf_nmt.push_to_hub(tmp_path / "adapter", "me/adapter", base_model="me/base")
    model = AutoModelForSeq2SeqLM.from_pretrained("me/base")
    before = model.state_dict()["model.decoder.layers.0.self_attn.q_proj.weight"].clone()
    ids = {"input_ids": torch.tensor([[5, 6, 3]]), "decoder_input_ids": torch.tensor([[2, 7]])}
    here = peft.PeftModel.from_pretrained(
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
    )
    merged = peft.PeftModel.from_pretrained(model, "me/adapter").merge_and_unload()
    assert torch.allclose(merged(**ids).logits, here(**ids).logits, atol=1e-3)
    assert not torch.equal(merged.state_dict()["model.decoder.layers.0.self_attn.q_proj.weight"], before)
    data = ModelCard.load("me/adapter").data
    assert (data.base_model, data.library_name) == ("me/base", "peft")


def test_an_adapter_is_opened_by_its_id(hub, tmp_path):
    """Merged, and with the settings and the tokenizer that lie beside it."""
    write_adapter(tmp_path / "adapter", saved("nmt", tmp_path / "base"), seed=3)
    hf_nmt.push_to_hub(tmp_path / "base", "me/base")
    hf_nmt.push_to_hub(tmp_path / "adapter", "me/adapter", base_model="me/base")
    here, tokenizer = load_model(tmp_path / "adapter")
    there, pulled_tokenizer = load_model("me/adapter")
    weights = there.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in here.state_dict().items())
    base = load_model("me/base")[0].state_dict()
    assert any(not torch.equal(weight, base[name]) for name, weight in weights.items())
    assert pulled_tokenizer(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
