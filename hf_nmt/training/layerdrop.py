"""LayerDrop: layers that a model leaves out at random while it trains, and what that means in several processes.

M2M100 is published with a rate of 0.05; each process draws its own layers.

Fan et al. (2020), Reducing Transformer Depth on Demand with Structured Dropout.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from torch import nn
from transformers import Seq2SeqTrainingArguments

logger = logging.getLogger(__name__)


def _parts(model: nn.Module) -> Iterator[nn.Module]:
    """Encoder and decoder, where they leave layers out."""
    return (part for part in model.modules() if getattr(part, "layerdrop", 0))


def use_all_layers(model: nn.Module) -> None:
    """Let the model leave no layer out from now on. Its configuration, and so what is saved, stays as it is."""
    for part in _parts(model):
        logger.info("%s: no layers are left out (layerdrop was %s)", type(part).__name__, part.layerdrop)
        part.layerdrop = 0.0


def prepare_for_processes(model: nn.Module, arguments: Seq2SeqTrainingArguments, *, divided: bool) -> None:
    """Let several processes train a model that leaves layers out.

    Args:
        divided: the processes gather the weights of a layer together, so that none of them may leave it out. Under
            data parallelism they have to agree on weights without a gradient before gradients are averaged:
            `ddp_find_unused_parameters`.
    """
    if arguments.world_size == 1 or not any(_parts(model)):
        return
    if divided:
        use_all_layers(model)
    elif not arguments.ddp_find_unused_parameters:
        arguments.ddp_find_unused_parameters = True
        logger.info(
            "training.ddp_find_unused_parameters: is true in this run, for the model leaves layers out at random "
            "(layerdrop), each process its own."
        )
