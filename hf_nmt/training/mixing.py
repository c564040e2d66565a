"""What a mixture drew: told in the log and kept in `mixing.json` of the run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from hf_nmt.artifacts import write_json
from hf_nmt.batching import TokenBatchSampler

logger = logging.getLogger(__name__)

RECORD = "mixing.json"


def tell_stages(sampler: TokenBatchSampler, epoch: int) -> None:
    """Log which stages an epoch has, where it begins one."""
    if (groups := sampler.mixture) is None:
        return
    before = sampler.stages_of(epoch - 1)[-1][0] if epoch else None
    for stage, first, _ in sampler.stages_of(epoch):
        if stage != before:
            shares = zip(groups.names, groups.stages[stage].drawn, strict=True)
            told = ", ".join(f"{name} {100 * drawn / len(groups.of_row):.3g}%" for name, drawn in shares)
            logger.info("epoch %d, from its update %d on: stage %d of the mixture (%s)", epoch, first, stage + 1, told)


def record_mixture(sampler: TokenBatchSampler, epoch: int, step: int, folder: Path) -> None:
    """Log and keep what an epoch drew of each group, counted from the batches themselves.

    Args:
        epoch: from 0.
        step: updates of the whole training that are done.
        folder: of the run.
    """
    if (groups := sampler.mixture) is None:
        return
    updates = min(step - epoch * sampler.updates, sampler.updates)
    drawn = sampler.drawn_in(epoch, updates)
    total = max(1, sum(drawn.values()))
    told = ", ".join(f"{name} {count:,} ({100 * count / total:.3g}%)" for name, count in drawn.items())
    logger.info("epoch %d drew %s", epoch, told)
    record = read_record(folder) or {
        "schema_version": 1,
        "rows": dict(zip(groups.names, groups.counts, strict=True)),
        "updates_an_epoch": sampler.updates,
        "stages": [
            {
                "drawn_an_epoch": dict(zip(groups.names, stage.drawn, strict=True)),
                "until_epoch": stage.until_epoch,
                "until_step": stage.until_step,
            }
            for stage in groups.stages
        ],
        "epochs": {},
    }
    stages = [
        {"stage": stage + 1, "first_update": first, "updates": min(last, updates) - first}
        for stage, first, last in sampler.stages_of(epoch)
        if first < updates
    ]
    record["epochs"][str(epoch)] = {"updates": updates, "stages": stages, "drawn": drawn}
    write_json(folder / RECORD, record)


def read_record(folder: Path) -> dict[str, Any] | None:
    path = folder / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
