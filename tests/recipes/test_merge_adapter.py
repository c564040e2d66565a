from __future__ import annotations

import subprocess
import sys

import families
import pytest
import torch
from safetensors.torch import load_file
from settings_walk.keys import ROOT, recipe_module

from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.generation import adapters
from hf_nmt.training.adapters import AdapterSettings, add_adapter
from hf_nmt.translators import load_model, load_translator


@pytest.fixture
def adapter(tmp_path):
    """The folder of an adapter of an M2M100."""
    families.make("m2m_100", tmp_path / "base")
    model, tokenizer = load_model(tmp_path / "base")
    add_adapter(model, AdapterSettings(rank=4))
    with torch.no_grad():
        for tensor in adapters.adapter_weights(model).values():
            tensor.normal_(std=0.1)
    tokenizer.src_lang, tokenizer.tgt_lang = "en", "fr"
    adapters.write_adapter(model, tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def main(*argv) -> int:
    return recipe_module("merge_adapter").main(list(map(str, argv)))


def test_a_merged_folder_is_a_whole_model(adapter, tmp_path, capsys):
    output = tmp_path / "merged"
    assert main(adapter, f"output={output}") == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert not (output / "adapter_config.json").exists() and "lm_head.weight" not in load_file(
        output / "model.safetensors"
    )
    merged, _ = load_model(output)
    assert merged.lm_head.weight.data_ptr() == merged.model.shared.weight.data_ptr()
    texts = [
        [best[0].text for best in load_translator(folder, "cpu", target_language="fr").translate(["balo delo."])]
        for folder in (output, adapter, tmp_path / "base")
    ]
    assert texts[0] == texts[1] != texts[2]
    # Where peft is not installed.
    script = (
        "import sys; sys.modules['peft'] = None; from hf_nmt.translators import load_model; load_model(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", script, output], check=True, capture_output=True, cwd=ROOT)


def test_what_cannot_be_merged(adapter, tmp_path):
    with pytest.raises(ConfigError, match="adapter: none is given[^$]*output: none is given"):
        main()
    with pytest.raises(ConfigError, match="base holds no adapter: there is no adapter_config.json"):
        main(tmp_path / "base", f"output={tmp_path / 'merged'}")
    with pytest.raises(ConfigError, match="output: .*base exists. Choose another name, or replace it with overwrite"):
        main(adapter, f"output={tmp_path / 'base'}")
    with pytest.raises(ConfigError, match="output: .*adapter is no model, and so is not replaced"):
        main(adapter, f"output={adapter}", "overwrite=true")
    with pytest.raises(ConfigError, match="base: .*nowhere: there is no such folder"):
        main(adapter, f"output={tmp_path / 'merged'}", f"base={tmp_path / 'nowhere'}")
    other, tokenizer = families.load("m2m_100")
    with torch.no_grad():
        other.model.shared.weight[5] += 1
    other.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(NmtError, match="is an adapter of other weights than those in .*other"):
        main(adapter, f"output={tmp_path / 'merged'}", f"base={tmp_path / 'other'}")
    assert not (tmp_path / "merged").exists()


def test_a_merge_that_computes_something_else_is_not_written(adapter, tmp_path, monkeypatch):
    def halfway(model):
        merged = adapters.merge_adapter(model)
        merged.model.decoder.layers[0].fc2.bias.data[0] += 1
        return merged

    monkeypatch.setattr("hf_nmt.training.adapters.merge_adapter", halfway)
    with pytest.raises(
        NmtError, match=r"The merged model differs from .*adapter on its model by .* in a logit, where"
    ):
        main(adapter, f"output={tmp_path / 'merged'}")
    assert not (tmp_path / "merged").exists()
