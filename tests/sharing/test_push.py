"""Pushing over HTTP to a Hub on this machine: what arrives, and what is said where nothing does."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import time

import families
import pytest
import torch
from hub_server import READ_TOKEN, TOKEN
from huggingface_hub import ModelCard
from run_records import write_run, write_scores
from safetensors.torch import save_file

import hf_nmt
from hf_nmt.artifacts import hash_folder, mark_complete
from hf_nmt.cards import is_ours
from hf_nmt.errors import NmtError
from hf_nmt.models.hub_nmt import is_pickle
from hf_nmt.sharing import contents_of


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return families.make("nmt", tmp_path_factory.mktemp("model") / "nmt")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "model")


def refusal(*arguments, **options) -> str:
    with pytest.raises(NmtError) as caught:
        hf_nmt.push_to_hub(*arguments, **options)
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def test_all_of_a_model_arrives_in_one_commit(hub, folder, caplog):
    mark_complete(folder)
    (folder / ".hidden").write_text("no part of a model")
    with caplog.at_level(logging.INFO, "hf_nmt"):
        commit = hf_nmt.push_to_hub(folder, "me/nmt", private=True, commit_message="The first")
    files = hub.files("me/nmt")
    assert hub.messages("me/nmt") == ["initial commit", "The first"] and hub.repos["me/nmt"].private
    assert commit.oid == hub.repos["me/nmt"].commits[-1][0] and commit.commit_url.endswith(
        f"me/nmt/commit/{commit.oid}"
    )
    here = hash_folder(folder)
    assert {*files} == {*here, "README.md"} - {".hidden"}
    assert {"modeling_nmt.py", "pipeline_nmt.py", "tokenizer.json", "generation_config.json"} <= {*files}
    assert all(files[name] == (folder / name).read_bytes() for name in {*files} - {"README.md"})
    assert f"me/nmt: {len(files)} files" in caplog.text
    assert f"Bearer {TOKEN}" in hub.authorizations and TOKEN not in caplog.text


def test_a_second_push_changes_what_changed_and_takes_away_what_is_left(hub, folder, caplog):
    hf_nmt.push_to_hub(folder, "nmt")
    older = hub.repos["me/nmt"].at("main")[2]
    older |= {"pytorch_model.bin": b"old", "model-00001-of-00002.safetensors": b"old", "plot.png": b"kept"}
    older["int8/model.bin"] = b"another form of it"
    with caplog.at_level(logging.INFO, "hf_nmt"):
        first = hf_nmt.push_to_hub(folder, "me/nmt")
    assert {"pytorch_model.bin", "model-00001-of-00002.safetensors"}.isdisjoint(hub.files("me/nmt"))
    assert hub.files("me/nmt")["plot.png"] == b"kept" and "int8/model.bin" in hub.files("me/nmt")
    assert "2 older ones go: model-00001-of-00002.safetensors, pytorch_model.bin" in caplog.text
    with caplog.at_level(logging.INFO, "hf_nmt"):
        assert hf_nmt.push_to_hub(folder, "me/nmt").oid == first.oid
    assert "me/nmt has all of it already; there is no new commit." in caplog.text
    assert len(hub.messages("me/nmt")) == 3


def test_a_branch_and_a_pull_request_leave_main_as_it_is(hub, folder):
    hf_nmt.push_to_hub(folder, "me/nmt")
    before = hub.repos["me/nmt"].at("main")
    (folder / "notes.txt").write_text("new")
    hf_nmt.push_to_hub(folder, "me/nmt", revision="v1")
    pull = hf_nmt.push_to_hub(folder, "me/nmt", create_pr=True)
    assert hub.repos["me/nmt"].at("main") == before
    assert hub.files("me/nmt", "v1")["notes.txt"] == b"new" == hub.repos["me/nmt"].pulls[0][2]["notes.txt"]
    assert pull.pr_url.endswith("/discussions/1")
    hf_nmt.push_to_hub(folder, "me/fresh", revision="v1")
    assert "config.json" in hub.files("me/fresh", "v1") and hub.files("me/fresh") == {}


# What may not be pushed


def test_pickles_are_refused_by_name_and_by_content(hub, folder, tmp_path):
    (folder / "training_args.bin").write_bytes(b"")
    torch.save({"a": 1}, folder / "looks_harmless.txt")
    (folder / "state").write_bytes(pickle.dumps([1]))
    (folder / "optimizer.pt").write_bytes(b"")
    text = refusal(folder, "me/nmt")
    assert "looks_harmless.txt, optimizer.pt, state, training_args.bin: weights and states other than safeten" in text
    assert "Push the folder of a model, such as runs/<id>/best" in text
    assert hub.requests == []
    (tmp_path / "plain.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    assert not is_pickle("plain.zip", tmp_path / "plain.zip") and is_pickle("a", b"\x80\x04")


@pytest.mark.parametrize(
    ("name", "content"),
    [(".env", ""), ("id_rsa", ""), ("my_credentials.json", "{}"), ("notes.md", f"use {TOKEN}")]
    + [("key.txt", "-----BEGIN RSA PRIVATE KEY-----"), ("log.json", '{"command": "token=' + TOKEN + '"}')],
)
def test_secrets_are_refused(hub, folder, name, content):
    (folder / name).write_text(content)
    if name == ".env":  # hidden files are no part of a model
        assert name not in contents_of(folder).files
        return
    text = refusal(folder, "me/nmt")
    assert f"{name}: this looks like a secret" in text and "Take it out of the folder." in text
    assert hub.requests == []


SHARDED = '{"weight_map": {"a": "b.safetensors"}}'


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "there is no tokenizer in it"),
        (lambda folder: cut(folder / "model.safetensors"), "model.safetensors is cut short: it has "),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "model.safetensors is damaged ("),
        (lambda folder: cut(folder / "tokenizer_config.json"), "tokenizer_config.json is damaged ("),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "b.safetensors"}}'
            ),
            "b.safetensors, which model.safetensors.index.json names, is missing.",
        ),
    ],
    ids=["config", "weights", "tokenizer", "cut weights", "strange weights", "cut JSON", "shard"],
)
def test_what_is_not_whole_is_refused(hub, folder, damage, message):
    damage(folder)
    assert message in refusal(folder, "me/nmt")
    assert hub.requests == []


def test_what_changed_since_it_was_marked_whole_is_refused(hub, folder):
    mark_complete(folder)
    (folder / "generation_config.json").write_text(json.dumps({"num_beams": 7}))
    assert "generation_config.json" in refusal(folder, "me/nmt")
    assert "there is no such folder. What is pushed is a folder on this machine" in refusal("me/nmt", "me/nmt")
    (folder / "run.json").write_text("{}")
    (folder / "best").mkdir()
    assert "is a run without a best model" in refusal(folder, "me/nmt")


# What the Hub refuses


@pytest.mark.parametrize("name", ["a/b/c", "me/a b", "me/x--y", "", "me/", "../x"])
def test_what_is_no_name(hub, folder, name):
    text = refusal(folder, name)
    assert text.startswith(f"{name!r} is no name of a repository: ") and "Write owner/name, such as me/nmt" in text
    assert hub.requests == []


def test_tokens_that_do_not_do(hub, folder, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    wrong = "hf_" + "wr0nG" * 7
    text = refusal(folder, "me/nmt", token=wrong)
    assert text.startswith(
        "The Hub does not take the token (Invalid credentials in Authorization header). Log in again"
    )
    assert "does not take the token" in refusal(folder, "nmt", token=wrong)
    text = refusal(folder, "me/nmt", token=READ_TOKEN)
    assert text.startswith("The token may not write to me/nmt (You don't have the rights") and "hf auth login" in text
    assert "The token may not write to you/nmt" in refusal(folder, "you/nmt")
    assert hub.repos == {}
    asked = len(hub.requests)
    assert "white space" in refusal(folder, "me/nmt", token=wrong + "\n")
    monkeypatch.delenv("HF_TOKEN")
    text = refusal(folder, "me/nmt")
    assert text.startswith("A push needs a token of the Hub, and there is none. Log in with `hf auth login`")
    assert len(hub.requests) == asked
    assert wrong not in caplog.text and READ_TOKEN not in caplog.text


def test_without_a_network(hub, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert refusal(folder, "me/nmt") == "Nothing is pushed, as HF_HUB_OFFLINE is set. Unset it to push."
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    text = refusal(folder, "me/nmt")
    assert text.startswith("http://127.0.0.1:9 could not be reached, or the connection broke (")
    assert time.monotonic() - started < 5 and hub.requests == []


def test_a_model_of_another_kind_is_not_replaced_unless_asked(hub, folder):
    hub.put("me/other", {"data.csv": b"1", "config.json": b'{"model_type": "hf_nmt", "target_language": "nl"}'})
    text = refusal(folder, "me/other")
    assert "me/other exists and holds another model (target_language is nl, to be en)." in text
    assert "exist_ok=True; the Hub keeps the older commits." in text
    hub.put("me/data", {"data.csv": b"1"})
    assert "me/data exists and holds something else (data.csv)." in refusal(folder, "me/data")
    hub.put("me/named", {"README.md": b"---\nlanguage: [en, de]\n---\n", "LICENSE": b"free"})
    hf_nmt.push_to_hub(folder, "me/named")
    assert hub.files("me/named")["LICENSE"] == b"free"
    assert all(len(hub.messages(name)) == 1 for name in ("me/other", "me/data"))
    hf_nmt.push_to_hub(folder, "me/other", exist_ok=True)
    assert "data.csv" in hub.files("me/other") and json.loads(hub.files("me/other")["config.json"])["d_model"]
    assert refusal(folder, "me/other", exist_ok=False).startswith("me/other exists already. Choose another name")


def test_visibility_of_what_exists_stays_and_that_is_said(hub, folder, caplog):
    hub.put("me/nmt", {})
    hf_nmt.push_to_hub(folder, "me/nmt", private=True)
    assert "me/nmt is public and stays so" in caplog.text and not hub.repos["me/nmt"].private


def test_what_somebody_else_commits_meanwhile_is_not_overwritten(hub, folder):
    hub.put("me/nmt", {})

    def meanwhile(method, path):
        if "/commit/" in path:
            hub.repos["me/nmt"].add("main", "theirs", {"README.md": b"theirs"})

    hub.on_request = meanwhile
    assert "me/nmt was changed by somebody else meanwhile (A commit has happened since" in refusal(folder, "me/nmt")
    assert hub.files("me/nmt") == {"README.md": b"theirs"}


# A push that breaks off


@pytest.mark.parametrize("place", ["/commit/", "/lfs-verify/", "/preupload/", "/validate-yaml"])
@pytest.mark.parametrize("failure", [0, 500])
def test_a_push_cut_off_leaves_nothing_and_a_second_one_completes(hub, folder, place, failure, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.fails_at = {place: failure}
    text = refusal(folder, "me/nmt")
    assert "Nothing of it is in me/nmt: files appear there with their commit only" in text
    assert ("The Hub failed with status 500" if failure else "the connection broke") in text
    assert "the same call again completes it" in text.lower()
    assert hub.messages("me/nmt") == ["initial commit"] and hub.files("me/nmt") == {}
    hub.fails_at = {}
    hf_nmt.push_to_hub(folder, "me/nmt")
    assert len(hub.messages("me/nmt")) == 2 and "model.safetensors" in hub.files("me/nmt")


def test_an_interruption_is_told(hub, folder, monkeypatch, caplog):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hf_nmt.push_to_hub(folder, "me/nmt")
    assert "Stopped. Nothing of it is in me/nmt: files appear there with their commit only. The same" in caplog.text


# Cards


@pytest.fixture
def run(made, tmp_path):
    return write_run(tmp_path / "runs" / "de-en-20260101-000000", made)


def test_a_run_is_pushed_with_a_card_of_its_facts(hub, run, tmp_path):
    scores = write_scores(tmp_path / "scores", run / "best")
    hf_nmt.push_to_hub(run, "nmt", license="mit", num_samples=1, scores=[scores])
    text = hub.card()
    assert is_ours(text) and 'pipeline("translation", model="me/nmt", trust_remote_code=True)' in text
    assert "license: mit" in text and "Ein Hund" in text and "38.50" in text and "/secret" not in text
    assert not (run / "best" / "README.md").exists()


def test_what_a_person_wrote_stays(hub, run, caplog):
    (run / "best" / "README.md").write_text("# Mine\n")
    hf_nmt.push_to_hub(run, "me/nmt")
    assert hub.card() == "# Mine\n"
    assert refusal(run, "me/nmt", license="mit").startswith("license: the card was written or changed by a person.")
    hf_nmt.push_to_hub(run, "me/nmt", card="write", license="mit")
    assert is_ours(hub.card())
    (run / "best" / "README.md").unlink()
    theirs = hub.card().replace("not tested", "well tested")
    hub.repos["me/nmt"].at("main")[2]["README.md"] = theirs.encode()
    hf_nmt.push_to_hub(run, "me/nmt", commit_message="again")
    assert hub.card() == theirs and "changed by a person and stays; card=write replaces it" in caplog.text
    hf_nmt.push_to_hub(run, "me/nmt", card="keep")
    assert hub.card() == theirs
    hub.put("me/begun", {"README.md": b"---\nlicense: mit\n---\n"})  # as the Hub's page makes it: no text to keep
    hf_nmt.push_to_hub(run, "me/begun")
    assert is_ours(hub.card("me/begun"))


def test_what_a_card_cannot_take(hub, run, folder):
    assert refusal(run, "me/nmt", card="new") == "card: 'new' is not one of auto, keep, write."
    text = refusal(run, "me/nmt", card="keep", license="mit", num_samples=1)
    assert text.startswith("license, num_samples: a card that is kept does not take it.")
    assert "card=keep: there is no README.md in" in refusal(run, "me/nmt", card="keep")
    assert "license: the card cannot be written, as the folder lies in no run" in refusal(
        folder, "me/a", license="mit"
    )
    (run / "best" / "README.md").write_text("---\nlicense: [1, 2]\n---\n")
    assert "Invalid metadata in README.md" in refusal(run, "me/nmt")
    assert hub.files("me/nmt") == {}


# Adapters


def test_an_adapter_names_a_model_that_others_have(hub, run):
    adapter = run / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "/secret/base", "peft_type": "LORA"}')
    save_file({"a": torch.zeros(2)}, adapter / "adapter_model.safetensors")
    text = refusal(adapter, "me/lora")
    assert "the adapter belongs to /secret/base, which nobody else has." in text and "base_model=owner/name" in text
    hf_nmt.push_to_hub(adapter, "me/lora", base_model="me/base")
    files = hub.files("me/lora")
    assert {*files} == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "me/base"
    data = ModelCard(hub.card("me/lora")).data
    assert (data.library_name, data.base_model) == ("peft", "me/base")
    assert 'PeftModel.from_pretrained(model, "me/lora")' in hub.card("me/lora")
