"""`model.push_to_hub` and `pipe.push_to_hub`: the model as it is in memory, with all that it needs."""

from __future__ import annotations

import json

import families
import marian_files
import pytest
import torch
from huggingface_hub import ModelCard
from run_records import write_run
from test_pull import FORBID, TEXTS, saved, translations
from transformers import pipeline

from hf_nmt.cards import is_ours, write_card
from hf_nmt.marian.importing import find_files, write_model
from hf_nmt.models.hub_nmt import PushError
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration
from hf_nmt.translators import load_model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return saved("nmt", tmp_path_factory.mktemp("model") / "nmt")


@pytest.fixture
def best(made, tmp_path):
    """A model folder with the card of its run."""
    folder = write_run(tmp_path / "runs" / "de-en", made) / "best"
    write_card(folder)
    return folder


def test_all_of_the_folder_it_was_loaded_from_goes_along(hub, best):
    model = NmtForConditionalGeneration.from_pretrained(best)
    commit = model.push_to_hub("nmt", private=True, commit_message="From memory")
    assert hub.messages("me/nmt") == ["initial commit", "From memory"] and hub.repos["me/nmt"].private
    assert commit.oid == hub.repos["me/nmt"].commits[-1][0]
    files = hub.files("me/nmt")
    assert {path.name for path in best.iterdir()} <= {*files}
    weights = "model.safetensors"
    assert files[weights] == (best / weights).read_bytes() and is_ours(hub.card())
    assert files["tokenizer.json"] == (best / "tokenizer.json").read_bytes()


def test_weights_that_changed_take_no_scores_along(hub, best, caplog):
    model = NmtForConditionalGeneration.from_pretrained(best)
    with torch.no_grad():
        model.lm_head.weight[5] += 1
    model.push_to_hub("me/nmt")
    text = hub.card()
    assert "> The weights were changed after this card was written" in text and "pushed with a note" in caplog.text
    assert ModelCard(text).data.eval_results is None and ModelCard(text).data.language == ["de", "en"]
    pulled = NmtForConditionalGeneration.from_pretrained("me/nmt")
    assert torch.equal(pulled.lm_head.weight, model.lm_head.weight)
    pulled.push_to_hub("me/copy")  # tokenizer and card of the repository
    assert hub.card("me/copy") == text


def test_a_model_from_memory_needs_a_tokenizer(hub, best):
    model, tokenizer = families.load("nmt")
    with pytest.raises(ValueError, match="with its tokenizer, and this one comes from memory alone, where"):
        model.push_to_hub("me/nmt")
    with pytest.raises(
        ValueError, match=r'weights without their tokenizer\. Write model\.push_to_hub\("owner/name"\)'
    ):
        model.save_pretrained(best, push_to_hub=True)
    model.push_to_hub("me/nmt", tokenizer=tokenizer)
    text = hub.card()
    assert "Nothing is recorded here of its training" in text and ModelCard(text).data.pipeline_tag == "translation"
    hub.repos["me/nmt"].at("main")[2]["README.md"] = b"# Theirs\n"
    model.push_to_hub("me/nmt", tokenizer=tokenizer)
    assert hub.card() == "# Theirs\n"  # no stock card in its place
    model.push_to_hub("me/nmt", tokenizer=tokenizer, card="# Mine\n")
    assert hub.card() == "# Mine\n"


def test_what_hinders_is_told_as_for_folders(hub, best, monkeypatch):
    model = NmtForConditionalGeneration.from_pretrained(best)
    with pytest.raises(PushError, match="The token may not write to you/nmt"):
        model.push_to_hub("you/nmt")
    hub.fails_at = {"/commit/": 500}
    with pytest.raises(PushError, match=r"The Hub failed with status 500 .*Nothing of it is in me/nmt"):
        model.push_to_hub("me/nmt")
    assert hub.files("me/nmt") == {}


@pytest.mark.parametrize("family", ["nmt", "marian"])
def test_a_pipeline_is_pushed_whole(hub, tmp_path, family):
    folder = saved(family, tmp_path / family)
    pipe = pipeline("translation", model=str(folder), device="cpu")
    pipe.push_to_hub(f"me/{family}")
    assert {path.name for path in folder.iterdir()} | {"README.md", "pipeline_nmt.py"} <= {*hub.files(f"me/{family}")}
    assert translations(f"me/{family}") == translations(folder)


def test_an_imported_model_is_pushed_with_its_own_positions(hub, tmp_path):
    files = find_files(marian_files.write_model(tmp_path / "marian"))
    (tmp_path / "imported").mkdir()
    write_model(files, tmp_path / "imported")
    pipeline("translation", model=str(tmp_path / "imported"), device="cpu").push_to_hub("me/imported")
    here, there = (load_model(path)[0].model.encoder for path in (tmp_path / "imported", "me/imported"))
    assert torch.equal(here.embed_positions.weight, there.embed_positions.weight)


SCRIPT = """
import json
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

model = AutoModelForSeq2SeqLM.from_pretrained("me/nmt", trust_remote_code=True)
model.push_to_hub("me/again")
pipe = pipeline("translation", model="me/again", device="cpu", trust_remote_code=True)
print(json.dumps([one["translation_text"] for one in pipe({texts!r}, num_beams=2, max_new_tokens=12)]))
pipe.push_to_hub("me/third")
pipe = pipeline("translation", model="me/marian", device="cpu", trust_remote_code=True)
pipe.push_to_hub("me/marian-again")
assert not [name for name in sys.modules if name.split(".")[0] == "hf_nmt"]
"""


@pytest.mark.slow
def test_remote_code_pushes_itself(hub, elsewhere, made, best, tmp_path):
    NmtForConditionalGeneration.from_pretrained(best).push_to_hub("me/nmt")
    pipeline("translation", model=str(saved("marian", tmp_path / "marian")), device="cpu").push_to_hub("me/marian")
    done = elsewhere(["-c", FORBID + SCRIPT.format(texts=TEXTS)])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == translations(made)
    for name in ("me/again", "me/third"):
        assert {*hub.files(name)} == {*hub.files("me/nmt")} and hub.card(name) == hub.card()
        assert all(hub.files(name)[file] == content for file, content in hub.files("me/nmt").items() if "_nmt" in file)
    assert {*hub.files("me/marian-again")} == {*hub.files("me/marian")}
    assert translations("me/marian-again") == translations("me/marian")
