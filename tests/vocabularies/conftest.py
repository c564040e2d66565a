"""The models that are adapted, each made once."""

from __future__ import annotations

import families
import pytest
import torch
from adapted_models import OURS, SAME, adapt, of_ours


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """name of a family -> folder of its tiny model."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("families") / name
            model, tokenizer = of_ours(**OURS[name]) if name in OURS else families.load(name)
            with torch.no_grad():  # so that no two logits are alike
                for weight in model.parameters():
                    weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
            model.save_pretrained(made[name])
            tokenizer.save_pretrained(made[name])
        return str(made[name])

    return folder


@pytest.fixture(scope="session")
def adapted(folder_of, tmp_path_factory):
    """name of a family, texts and settings -> folder of the adapted model, and its report."""
    made = {}

    def folder(name, texts=SAME, **settings):
        key = (name, texts["source"][0], *sorted(settings.items()))
        if key not in made:
            output = tmp_path_factory.mktemp("adapted") / name
            made[key] = output, adapt(folder_of(name), output, texts, **settings)
        return made[key]

    return folder
