"""Draw drops of unchanged corpora, to be judged one by one.

    python docs/benchmarks/planted_defects/judge.py draw --sample pairings --data FOLDER --work WORK
    python docs/benchmarks/planted_defects/judge.py keep --sample pairings --work WORK

FOLDER holds `multi30k` (`train`, `val` and `test_2016_flickr` in `de`, `en`, `fr` and `cs`) and `ko-en`
(`tatoeba.tsv`, `news.dev.*`, `jhe.dev.*`). The sample `training` is of Multi30k's training text from de, fr and cs to
en and all of ko-en; `pairings` is of what is not in that: de-fr, de-cs and fr-cs, and the validation and test sets to
en. `draw` runs `prepare_data` over each pair of languages, with its own steps and `alignment`, and writes 200 of all
that they drop, or all of fewer, to WORK/drawn.tsv with their texts; of duplicates with the pair that stays. Put
`right` or `wrong` into the first column of each line. `keep` takes these verdicts to verdicts_<sample>.tsv, without
the texts.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from hf_nmt.benchmarking import recipe
from hf_nmt.cleaning.settings import STEPS_WITH_ALIGNMENT

HERE = Path(__file__).resolve().parent
SAMPLES = ("training", "pairings")
SEED, DRAWN = 20221122, 200
REPEATS = ("duplicate", "near_duplicate")
HEADER = ("corpus", "id", "step: reason", "verdict")


def corpora(data: Path, sample: str) -> dict[str, dict[str, Any]]:
    """Inputs of the recipe by name, which is that of the languages."""
    files = {"train": "multi30k", "val": "validation", "test_2016_flickr": "test"}

    def multi30k(source: str, target: str, names: Iterable[str]) -> dict[str, Any]:
        folder = data / "multi30k"
        sides = {"source": source, "target": target}
        return {
            files[name]: {side: str(folder / f"{name}.{code}.gz") for side, code in sides.items()} for name in names
        }

    if sample == "pairings":
        others = (("de", "fr"), ("de", "cs"), ("fr", "cs"))
        found = {f"{source}-{target}": multi30k(source, target, files) for source, target in others}
        return found | {f"{code}-en": multi30k(code, "en", [*files][1:]) for code in ("de", "fr", "cs")}
    found = {f"{code}-en": multi30k(code, "en", ["train"]) for code in ("de", "fr", "cs")}
    folder = data / "ko-en"
    found["ko-en"] = {
        "tatoeba": {"path": str(folder / "tatoeba.tsv"), "source_column": "2", "target_column": "1"},
        **{
            name: {"source": str(folder / f"{name}.dev.ko"), "target": str(folder / f"{name}.dev.en")}
            for name in ("news", "jhe")
        },
    }
    return found


def draw(data: Path, work: Path, sample: str) -> None:
    drops = []
    for languages, inputs in corpora(data, sample).items():
        source, target = languages.split("-")
        settings = {
            "source_language": source,
            "target_language": target,
            "inputs": inputs,
            "steps": [{kind: {}} for kind in STEPS_WITH_ALIGNMENT],
            "output_dir": str(work / languages),
            "work_dir": str(work / "between"),
            "num_workers": 1,
        }
        (work / f"{languages}.yaml").write_text(json.dumps(settings), encoding="utf-8")
        version = Path(recipe("prepare_data", "--config", str(work / f"{languages}.yaml")))
        rejected = pq.read_table(version / "rejects.parquet").to_pylist()
        every = [row for path in sorted(version.glob("data/*.parquet")) for row in pq.read_table(path).to_pylist()]
        by_id = {row["id"]: row for row in every + rejected}
        for row in rejected:
            other = by_id[row["detail"][:32]] if row["reason"] in REPEATS else {}
            texts = [row["detail"] or "", row["source"], row["target"], other.get("source"), other.get("target")]
            cells = [" ".join((text or "").split()) for text in texts]
            drops.append([languages, row["id"], f"{row['step']}: {row['reason']}", *cells])
    drops.sort()
    drawn = random.Random(SEED).sample(drops, min(DRAWN, len(drops)))
    rows = [["", *row] for row in sorted(drawn)]
    header = ["verdict", *HEADER[:3], "detail", "source", "target", "source that stays", "target that stays"]
    (work / "drawn.tsv").write_text("".join("\t".join(row) + "\n" for row in [header, *rows]), encoding="utf-8")


def verdicts_of(sample: str) -> Path:
    return HERE / f"verdicts_{sample}.tsv"


def keep(work: Path, sample: str) -> None:
    rows = [line.split("\t") for line in (work / "drawn.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    missing = [row[2] for row in rows if row[0] not in ("right", "wrong")]
    if missing:
        raise SystemExit(
            f"{len(missing)} lines have neither right nor wrong in their first column, such as {missing[0]}"
        )
    lines = [HEADER, *((*row[1:4], row[0]) for row in rows)]
    verdicts_of(sample).write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["draw", "keep"])
    parser.add_argument("--sample", choices=SAMPLES, required=True, help="which text the drops are of")
    parser.add_argument("--data", type=Path, help="folder with the corpora")
    parser.add_argument("--work", type=Path, required=True, help="where files are put")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if given.part == "keep":
        keep(given.work, given.sample)
    elif given.data is None or not given.data.is_dir():
        parser.error(f"--data: {given.data} is no folder; give the one with the corpora (see --help)")
    else:
        draw(given.data, given.work, given.sample)


if __name__ == "__main__":
    main()
