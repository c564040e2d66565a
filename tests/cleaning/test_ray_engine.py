"""The pipeline on a Ray of this machine against the same in one process.

Ray takes seconds to start, so one test asks one Ray for all.
"""

from __future__ import annotations

import functools
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from corpora_of_rows import rows_of, tables

from hf_nmt.cleaning.engine import Engine, LocalEngine
from hf_nmt.cleaning.leakage import EvaluationSet, LeakageSettings, pass_gate
from hf_nmt.cleaning.near_duplicates import NearDuplicates
from hf_nmt.cleaning.pipeline import NamedStep, clean, read_table
from hf_nmt.cleaning.ray_engine import RayEngine, ray_engine
from hf_nmt.cleaning.settings import EngineSettings, default_steps, named_steps
from hf_nmt.cleaning.split_manifest import describe
from hf_nmt.cleaning.splits import SplitSet, SplitSettings, split
from hf_nmt.config import load
from hf_nmt.data.canonical import hash_of_tables
from hf_nmt.errors import ConfigError, DataError, NmtError, need

ROOT = Path(__file__).resolve().parents[2]
GERMAN = ("Hund", "Mann", "Kind", "Vogel", "Bruder", "Nachbar", "Lehrer", "Koch", "Fahrer", "König")
ENGLISH = ("dog", "man", "child", "bird", "brother", "neighbour", "teacher", "cook", "driver", "king")


def corpus(count: int) -> list[dict]:
    """Sentences in articles, with doubles, near doubles, an empty side, and some in another language."""
    draw, rows = random.Random(1), []
    for number in range(count):
        at = [draw.randrange(10) for _ in range(5)]
        row = {
            "source": "Der {} sieht den {} und den {}, der {} aber liebt den {}.".format(*(GERMAN[n] for n in at)),
            "target": "The {} sees the {} and the {}, but the {} loves the {}.".format(*(ENGLISH[n] for n in at)),
            "source_language": "de",
            "target_language": "en",
            "article": f"a{number // 8}",
            "position": number % 8,
        }
        kind = draw.randrange(8)
        if kind == 0 and rows:
            row |= {side: rows[-1][side] for side in ("source", "target")}
        elif kind == 1 and rows:
            row |= {"source": rows[-1]["source"].replace("sieht", "sah"), "target": rows[-1]["target"]}
        elif kind == 2:
            row |= {"source": row["target"], "target": row["source"]} if number % 2 else {"target": ""}
        rows.append(row)
    return rows + rows[:3]


def everything(engine: Engine, paths: list[Path], folder: Path) -> dict[str, object]:
    """All that comes of the default steps, a split and the gate."""
    cleaned = clean(paths, named_steps(default_steps()), folder, identity=0, engine=engine)
    assert cleaned.seconds.keys() == {step.name for step in cleaned.steps}
    sets = {"validation": SplitSet(count=8)}
    made = split(cleaned.kept, SplitSettings(sets=sets, tie_articles=False), folder, engine)
    own = {"validation": made.tables["validation"]}
    given = {"other": pa.concat_tables(map(read_table, made.tables["train"])).slice(0, 5)}
    settings = LeakageSettings(on_leak="drop", sets={"other": EvaluationSet(path="other")})
    left, reports = pass_gate(made.train(cleaned), given, settings, engine, folder, folder, own)
    return {
        "hash": hash_of_tables(map(read_table, left.kept)),
        "kept": rows_of(left.kept),
        "rejected": rows_of(left.rejected),
        "steps": left.steps,
        "manifest": describe(made, {"train": left.kept, **own}),
        "leakage": reports,
    }


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Iterator[Path]:
    """The system's temporary folder, which is empty before and after; the folder that is called from is another."""
    folder = tempfile.mkdtemp(dir="/tmp")
    monkeypatch.setattr(tempfile, "tempdir", folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    yield Path(folder)
    assert not os.listdir(folder) and not (tmp_path / "home").exists()
    os.rmdir(folder)


def test_ray_maps_and_shuffles_as_one_process_does(tmp_path, temporary):
    pytest.importorskip("ray")
    paths, steps = tables(tmp_path / "in", corpus(40), of=10), [NamedStep("near", NearDuplicates(threshold=0.7))]
    with ray_engine(2, None) as engine:
        assert list(temporary.iterdir())
        one, other = (
            clean(paths, steps, tmp_path / str(place), identity=0, engine=each)
            for place, each in enumerate((LocalEngine(1), engine))
        )
        # Paths are those of the folder that was called from, and results those of the tasks in their order.
        Path("there").touch()
        assert list(engine.map(os.path.exists, ["there", "nowhere", "there"])) == [True, False, True]
        assert list(engine.map(abs, [])) == [] and engine.shuffle(abs, [], [], bytes_of_rows=0, folder=tmp_path) == []
        with pytest.raises(NmtError, match=r"The package 'nowhere' .* pip install \"hf_nmt\[some\]\""):
            list(engine.map(functools.partial(need, extra="some"), ["nowhere"]))
        with pytest.raises(DataError, match=r"nowhere: is not there for a worker of Ray"):
            list(engine.map(Path.read_text, [Path("nowhere")]))
    assert rows_of(other.kept) == rows_of(one.kept) and rows_of(other.rejected) == rows_of(one.rejected)
    assert len(rows_of(one.rejected)) > 3


@pytest.mark.slow
def test_ray_comes_to_the_same(tmp_path, temporary):
    """With the shuffles of a cluster."""
    data = pytest.importorskip("ray.data")
    paths = tables(tmp_path / "in", corpus(100), of=25)
    before = everything(LocalEngine(1), paths, tmp_path / "local")
    reasons = {row["reason"] for row in before["rejected"]}
    assert reasons >= {"target_empty", "duplicate", "near_duplicate", "swapped_sides", "leaked"}
    with ray_engine(2, None) as engine:
        data.DataContext.get_current().shuffle_strategy = data.context.ShuffleStrategy.SHUFFLE_V2
        after = everything(engine, paths, tmp_path / "ray")
        with pytest.raises(NmtError, match="nowhere, which lay there between two steps, is gone"):
            engine.shuffle(read_table, [Path("nowhere")], [abs], bytes_of_rows=1, folder=tmp_path)
        with pytest.raises(NmtError, match="the worker of a task died"):
            list(engine.map(os._exit, [3]))
    assert after == before


def test_shuffles_need_no_more_than_a_share_of_the_rows():
    """Many rows come together in many places: 2 ** 26 bytes or so in each."""
    engine = RayEngine.__new__(RayEngine)
    seen = []
    engine._ray = type("Ray", (), {"cluster_resources": staticmethod(lambda: {"CPU": 4}), "exceptions": None})
    engine._shuffled = lambda make, tasks, stages, places, folder: seen.append(places)
    engine._errors_told = lambda: open(os.devnull)
    for count in (1, 2**30, 2**40):
        engine.shuffle(abs, [1], [abs], bytes_of_rows=count, folder=Path())
    assert seen == [8, 16, 2**14]


@pytest.mark.parametrize(
    ("given", "variable", "told"),
    [
        (["ray_address=auto"], None, "ray_address: it would change nothing.*engine=ray"),
        (["engine=ray", "ray_address=ray://head:10001"], None, "Call the recipe on a node of the cluster"),
        (["engine=ray", "ray_address=head:1", "num_workers=2"], None, "num_workers: the Ray at head:1 has"),
        (["engine=ray", "num_workers=2"], "head:2", "num_workers: the Ray at head:2 has"),
    ],
)
def test_what_does_not_go_together_is_refused(given, variable, told, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    with pytest.raises(ConfigError, match=told):
        load(EngineSettings, None, given)


def test_a_cluster_that_is_not_there_is_told_at_once():
    pytest.importorskip("ray")
    told = r"ray_address: 127.0.0.1:1 cannot be reached .*Connection refused"
    with pytest.raises(ConfigError, match=told), ray_engine(2, "127.0.0.1:1"):
        pass


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(NmtError, match=r'pip install "hf_nmt\[ray\]"'), EngineSettings(engine="ray").opened_engine():
        pass


def test_local_work_asks_for_no_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with EngineSettings(num_workers=3).opened_engine() as engine:
        assert isinstance(engine, LocalEngine) and engine.num_workers == 3 and engine.shuffle is None


@pytest.mark.slow
def test_the_recipe_makes_the_same_version(tmp_path):
    pytest.importorskip("ray")
    rows = corpus(200)
    for side in ("source", "target"):
        (tmp_path / side).write_text("".join(row[side] + "\n" for row in rows), encoding="utf-8")
    call = [sys.executable, ROOT / "recipes/prepare_data.py", "source_language=de", "target_language=en"]
    call += ["inputs.mine.source=source", "inputs.mine.target=target", "num_workers=2"]
    (tmp_path / "t").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "t"), "HOME": str(tmp_path / "t")}
    seen = {}
    for name, more in {"local": [], "ray": ["--engine", "ray"]}.items():
        done = subprocess.run(
            [*call, f"work_dir={name}/work", f"output_dir={name}/out", *more],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        folder = tmp_path / done.stdout.strip()
        files = {path.name: path.read_bytes() for path in (*folder.rglob("*.parquet"), *folder.glob("*.json"))}
        told = [line.split("(")[0] for line in done.stderr.splitlines()]
        seen[name] = folder.name, {name: files[name] for name in files if name != "manifest.json"}, told
    assert seen["ray"] == seen["local"]
    assert not any((tmp_path / "t").iterdir())
