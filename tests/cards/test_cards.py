"""Cards: every fact from its record, nothing of the machine, and metadata that the Hub takes."""

from __future__ import annotations

import json
import shutil

import families
import pytest
import yaml
from hub_server import card_problems
from huggingface_hub import ModelCard
from run_records import SIGNATURE, score, write_run, write_scores

from hf_nmt.artifacts import hash_model, write_json
from hf_nmt.cards import CardChoices, code_span, is_ours, make_card, plain_text, run_of, write_card
from hf_nmt.cards.facts import card_languages, command, read_run
from hf_nmt.errors import NmtError
from hf_nmt.training.texts import TrainingData


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return families.make("nmt", tmp_path_factory.mktemp("model") / "nmt")


@pytest.fixture
def run(model, tmp_path):
    return write_run(tmp_path / "runs" / "de-en-20260101-000000", model)


def card(run, **choices) -> str:
    return make_card(run / "best", CardChoices(**choices))


def test_every_fact_is_that_of_its_record(run):
    text = card(run, repo_id="me/nmt", license="cc-by-4.0")
    for fact in (
        "# nmt\n", "translates from de to en. It was trained with hf_nmt 0.1.0.",
        'pipeline("translation", model="me/nmt", trust_remote_code=True)',
        "| BLEU | 41.23 | 40.10 to 42.20 | 1,014 | validation text (cdcdcdcdcdcdcdcd) |", f"- BLEU: `{SIGNATURE}`",
        "The validation text also chose these weights", "Translated with beam search, 5 beams, length penalty 1.0.",
        "| train | 29,000 | train.de, train.en | `abababababababab` |",
        "| validation | 1,014 | controlled/tiny, split validation | `cdcdcdcdcdcdcdcd` |",
        "- train, encode: dropped: 1,200 too long", "6,808,576; the average of 2 checkpoints (step 3000 to 4000)",
        "4,914 updates, 18 epochs, 16,857,486 source and target tokens", "- time: 57 minutes", "bf16",
        "It has seen 29,000 sentence pairs and nothing else", "fingerprint `0123456789abcdef`; seed 42.",
        "learning rate 0.001, cosine, warmup", "steps 500, label smoothing 0.1",
        "python recipes/train.py --config de-en_small data.train.source=train.de\n", "| torch | 2.13.0 |",
        f"Revision of hf_nmt: `{'f' * 40}`.",
    ):  # fmt: skip
        assert fact in text, fact
    data = ModelCard(text).data
    assert (data.language, data.license, data.pipeline_tag, data.library_name) == (
        ["de", "en"], "cc-by-4.0", "translation", "transformers",
    )  # fmt: skip
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.metric_args) == ("bleu", 41.23, {"signature": SIGNATURE})
    assert (result.dataset_split, result.task_type) == ("validation", "translation")
    assert "/secret" not in text and card_problems(text) == []


def test_what_is_unknown_is_not_said(model, tmp_path):
    run = write_run(tmp_path / "run", model)
    for name in ("summary", "manifest", "validation_history"):
        (run / f"{name}.json").unlink()
    text = card(run)
    assert "It was not scored." in text and "model-index" not in text and "license" not in text
    assert "None" not in text and card_problems(text) == []


def test_what_was_trained_further(model, tmp_path):
    data = {"source_language": "zh-Hant", "target_language": "deu_Latn"}
    run = write_run(tmp_path / "run", model, model={"pretrained": "org/base"}, data=data)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["inputs"]["train"] = {"path": "org/pairs", "format": "hub", "subset": "zh-de", "split": "train"}
    write_json(run / "manifest.json", manifest)
    text = card(run)
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata["base_model"] == "org/base" and metadata["datasets"] == ["org/pairs"]
    assert metadata["language"] == ["zh", "deu"] and metadata["language_bcp47"] == ["zh-Hant", "deu-Latn"]
    assert "It continues `org/base`." in text and "may have lost some of what it knew" in text
    assert "| train | 29,000 | org/pairs, subset zh-de, split train |" in text
    assert card_problems(text) == []
    run = write_run(tmp_path / "other", model, model={"pretrained": "/secret/model"})
    assert "/secret" not in card(run) and "base_model" not in card(run)
    assert ModelCard(card(run, base_model="me/base")).data.base_model == "me/base"


def test_several_pairs_of_languages(model, tmp_path):
    """As the settings of a run are recorded: one entry tells its languages by its name, the other itself."""
    corpus = {"source": "text.de", "target": "text.xx"}
    news = {"source_language": "de", "target_language": "fr", "train": corpus}
    data = TrainingData(pairs={"de-en": {"train": corpus}, "news": news}).model_dump(mode="json")
    text = card(write_run(tmp_path / "run", model, data=data))
    assert "translates from de to en and from de to fr." in text and 'src_lang="de", tgt_lang="en")' in text
    assert ModelCard(text).data.language == ["de", "en", "fr"]
    assert card_languages(["pt-BR", "pt", "x-klingon"]) == (["pt"], ["pt-BR", "x-klingon"])


def test_samples_are_shown_on_request_and_escaped(run):
    assert "Hund" not in card(run)
    text = card(run, num_samples=1)
    assert "| Ein Hund \\| &lt;b&gt;rennt&lt;/b&gt; schnell. | A \\`dog\\`. | A \\*dog\\* runs. |" in text
    assert "Katzen" not in text and "Katzen" in card(run, num_samples=5)


def test_scores_of_a_test_set_are_taken_from_this_model_only(run, tmp_path):
    folder = write_scores(tmp_path / "scores", run / "best")
    text = card(run, scores=[folder])
    assert "| BLEU | 38.50 | not measured | 1,014 | test\\_2016.de (cdcdcdcdcdcdcdcd) |" in text
    assert len(ModelCard(text).data.eval_results) == 2 and "/secret" not in text
    write_json(folder / "scores.json", [score(system="another")])
    with pytest.raises(NmtError, match=r"these scores are of another model \(hash another\) than .* Score this one"):
        card(run, scores=[folder])


def test_names_with_signs_of_yaml_and_markdown(model, tmp_path):
    run = write_run(tmp_path / "run", model)
    record = json.loads((run / "run.json").read_text())
    record["name"] = "---\n# yes: [no]\n```"
    write_json(run / "run.json", record)
    text = card(run)
    assert card_problems(text) == [] and "# --- \\# yes: \\[no\\] \\`\\`\\`\n" in text
    assert ModelCard(text).data.eval_results[0].metric_value == 41.23
    assert plain_text("a_b|c<d>&\n*e*") == "a\\_b\\|c&lt;d&gt;&amp; \\*e\\*"
    assert code_span("a`b``c") == "```a`b``c```" and code_span("`a") == "`` `a ``"


def test_a_card_knows_whether_a_person_changed_it(run):
    write_card(run / "best")
    path = run / "best" / "README.md"
    text = path.read_text()
    assert is_ours(text) and is_ours(text.replace("\n", "\r\n").replace("\r\n", "\n"))
    before = hash_model(run / "best")
    path.write_text(text.replace("not tested", "hardly tested"))
    assert not is_ours(path.read_text()) and not is_ours("# Mine\n") and hash_model(run / "best") == before
    write_card(run / "best", CardChoices(license="mit"))
    assert "hardly tested" in path.read_text() and "license" not in path.read_text()
    path.unlink()
    write_card(run / "best", CardChoices(license="mit"))
    assert "license: mit" in path.read_text()


def test_a_folder_outside_a_run_has_no_card(model, tmp_path):
    assert run_of(model) is None
    with pytest.raises(NmtError, match="written from the records of a run, and this folder lies in none"):
        make_card(model, CardChoices())
    with pytest.raises(NmtError, match=r"is not a run folder: there is no run.json in it\."):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["train.py", "a=/x/y/z.de", "output_dir=/x", "name=n"], "python recipes/train.py a=z.de"),
        (["/a/b/train.py", "--config", "/x/my.yaml"], "python recipes/train.py --config my.yaml"),
        (["train.py", "a=[/x/b.en,../c/d.en]"], "python recipes/train.py a=[b.en,d.en]"),
        (
            ["train.py", "a=~/x/b.en", "model.pretrained=org/name"],
            "python recipes/train.py a=b.en model.pretrained=org/name",
        ),
    ],
)
def test_the_command_without_the_folders_of_the_machine(run, words, shown):
    record = read_run(run)
    record.run["environment"]["command"] = words
    assert command(record) == shown


@pytest.mark.parametrize(
    ("pretrained", "choices", "base"),
    [
        ("more", {}, "more"),
        ("/secret/more", {}, "<the model it belongs to>"),
        ("org/base", {}, "org/base"),
        ("more", {"repo_id": "me/a", "base_model": "me/base"}, "me/base"),
        ("more", {"repo_id": "me/a"}, "<the model it belongs to>"),
    ],
)
def test_the_example_of_an_adapter_names_its_model(pretrained, choices, base, model, tmp_path):
    run = write_run(tmp_path / "run", model, model={"pretrained": pretrained}, output_dir="runs")
    shutil.copytree(run / "best", run / "adapter")
    (run / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    text = make_card(run / "adapter", CardChoices(**choices))
    assert f'AutoModelForSeq2SeqLM.from_pretrained("{base}")' in text and "secret" not in text


def test_examples_say_where_the_model_is(model, tmp_path):
    """On the Hub its id; here its folder as seen from where the run was started, or no path at all."""
    near = write_run(tmp_path / "runs" / "de-en-1", model, output_dir="work/runs")
    far = write_run(tmp_path / "elsewhere" / "de-en-2", model, output_dir="/secret/runs")
    assert 'model="me/nmt"' in card(near, repo_id="me/nmt") and 'model="me/nmt"' in card(far, repo_id="me/nmt")
    assert 'pipeline("translation", model="work/runs/de-en-1/best", trust_remote_code=True)' in card(near)
    text = card(far)
    assert "In the folder of this card:" in text and 'model=".", trust' in text and "secret" not in text
    assert "In the folder" not in card(near) + card(far, repo_id="me/nmt")
    for run, place in ((near, "work/runs/de-en-1/adapter"), (far, ".")):
        shutil.copytree(run / "best", run / "adapter")
        (run / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        text = make_card(run / "adapter", CardChoices())
        assert f'PeftModel.from_pretrained(model, "{place}")' in text
        assert f"recipes/translate.py model={place if place != '.' else 'FOLDER'} <" in text
