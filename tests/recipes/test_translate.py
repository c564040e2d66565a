"""recipes/translate.py as a user runs it."""

from __future__ import annotations

import errno
import functools
import gzip
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
from settings_walk.keys import recipe_module
from small_models import sentences

from hf_nmt import artifacts
from hf_nmt.errors import ConfigError, DataError, NmtError
from hf_nmt.generation import files, hub, inputs

SCRIPT = Path(__file__).parents[2] / "recipes" / "translate.py"
LINES = sentences(60, seed=31)


@pytest.fixture(scope="module")
def recipe():
    return recipe_module("translate")


@pytest.fixture
def run(recipe, copy_folder, tmp_path):
    """Translate bytes given as a file, and return the bytes written."""

    def run(data: bytes, *arguments: str) -> bytes:
        (tmp_path / "in").write_bytes(data)
        output = tmp_path / "out"
        files_given = [f"model={copy_folder}", f"input={tmp_path / 'in'}", f"output={output}", "device=cpu"]
        assert recipe.main(["--config", "tiny", *files_given, "overwrite=true", *arguments]) == 0
        assert not list(tmp_path.glob("*.partial*")) and not list(tmp_path.glob(".*"))
        return output.read_bytes()

    return run


@pytest.fixture(scope="module")
def good(_trained):
    """Lines that the model copies exactly."""
    from small_models import word_tokenizer

    from hf_nmt.generation.decoding import DecodingSettings
    from hf_nmt.generation.translator import TorchTranslator
    from hf_nmt.models.tokenization_nmt import NmtTokenizer

    translator = TorchTranslator(_trained[300], NmtTokenizer(tokenizer_object=word_tokenizer()))
    found = translator.translate(LINES, DecodingSettings(num_beams=1))
    kept = [line for line, (one,) in zip(LINES, found, strict=True) if one.text == line]
    assert len(kept) > 40
    return kept


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_lines_empty_ones_and_their_ends_stay(run, good, end, last):
    data = end.join([*good[:5], "", "  ", good[5] + " " + good[6], ""] + [good[7]]) + (end if last else "")
    assert run(data.encode()) == data.encode()


def test_an_empty_file_gives_an_empty_file_and_is_told(run, caplog):
    with caplog.at_level(logging.INFO, logger="hf_nmt"):
        assert run(b"") == b""
    assert "0 texts: the input is empty, there was nothing to do" in caplog.messages


def test_a_byte_order_mark_is_no_text(run, good):
    assert run(b"\xef\xbb\xbf" + good[0].encode() + b"\n") == good[0].encode() + b"\n"


def test_separators_that_are_no_line_ends_stay_in_their_line(run, good):
    data = f"{good[0]}\u2028{good[1]}\x85{good[2]}\r{good[3]}\n{good[4]}\n"
    assert run(data.encode()).decode().replace("\r", " ").count("\n") == 2


def test_gzip_input(run, good, tmp_path, recipe, copy_folder):
    data = "".join(f"{line}\n" for line in good)
    (tmp_path / "in.gz").write_bytes(gzip.compress(data.encode()))
    arguments = [str(copy_folder), f"input={tmp_path / 'in.gz'}", f"output={tmp_path / 'out'}", "device=cpu"]
    recipe.main([*arguments, "--config", "tiny"])
    assert (tmp_path / "out").read_text() == data
    (tmp_path / "in.gz").write_bytes(gzip.compress(data.encode())[:-20])
    with pytest.raises(DataError, match=r"in.gz: the gzip file cannot be unpacked after line \d+ .*copy it"):
        recipe.main([*arguments, "--config", "tiny", "overwrite=true"])


def test_n_best_lists_as_text(run, good):
    data = run(
        "".join(f"{line}\n" for line in good[:3]).encode(), "decoding.num_beams=4", "decoding.num_return_sequences=3"
    )
    rows = [line.split("\t") for line in data.decode().splitlines()]
    assert [row[0] for row in rows] == ["0"] * 3 + ["1"] * 3 + ["2"] * 3
    assert [row[2] for row in rows[::3]] == good[:3]
    scores = [float(row[1]) for row in rows]
    assert all(scores[i] >= scores[i + 1] for i in (0, 1, 3, 4, 6, 7))


def test_json_lines(run, good):
    data = run(f"{good[0]}\n\n".encode(), "output_format=jsonl")
    first, second = [json.loads(line) for line in data.splitlines()]
    assert (first["index"], first["source"], second["index"], second["source"]) == (0, good[0], 1, "")
    (best,) = first["translations"]
    assert best["text"] == good[0] and best["finish_reason"] == "eos"
    assert len(best["token_scores"]) == len(best["tokens"]) and best["tokens"][-1] == "</s>"
    assert best["score"] == pytest.approx(sum(best["token_scores"]) / len(best["token_scores"]), abs=1e-5)


def test_a_record_lies_beside_the_output(run, good, tmp_path, copy_folder, caplog):
    with caplog.at_level(logging.INFO):
        data = run("".join(f"{line}\n" for line in good[:20]).encode())
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["model"]["path"] == str(copy_folder) and len(record["model"]["hash"]) == 16
    assert record["output"] == {"bytes": len(data), "lines": 20, "sha256": artifacts.hash_file(tmp_path / "out")}
    assert record["input"] == {"bytes": len(data), "lines": 20, "sha256": artifacts.hash_file(tmp_path / "in")}
    assert record["decoding"]["num_beams"] == 1 and record["statistics"]["texts"] == 20
    assert "torch" in record["environment"]["packages"]
    assert "20 texts, 20 sentences" in caplog.text and "sentences/s" in caplog.text


def test_standard_streams(recipe, copy_folder, good, monkeypatch, tmp_path):
    data = "".join(f"{line}\n" for line in good).encode()
    written, read = io.BytesIO(), []
    (tmp_path / "in").write_bytes(data)
    monkeypatch.setattr(inputs, "open_input", lambda source: read.append(source) or open(tmp_path / "in", "rb"))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, write_through=True))
    assert recipe.main([f"model={copy_folder}", "device=cpu", "decoding.num_beams=1"]) == 0
    assert written.getvalue() == data and read == [None]


@pytest.mark.parametrize("streams", ["input={0}/in", "input={0}/in output={0}/out"])
def test_a_log_tells_how_far_it_is(recipe, copy_folder, good, tmp_path, monkeypatch, caplog, streams):
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in good))
    monkeypatch.setattr(recipe, "Meter", functools.partial(recipe.Meter, seconds_between_lines=0))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), write_through=True))
    with caplog.at_level(logging.INFO, logger="hf_nmt"):
        options = ["device=cpu", "--config", "tiny", "decoding.batch_tokens=40"]
        recipe.main([f"model={copy_folder}", *streams.format(tmp_path).split(), *options])
    pattern = rf"translating: (\d+)/{len(good)} lines  [\d.,]+ lines/s(  \d:\d\d:\d\d left)?"
    told = [match for message in caplog.messages if (match := re.fullmatch(pattern, message))]
    counts = [int(match[1]) for match in told]
    assert counts == sorted(counts) and 16 in counts and min(counts) < 16  # within the first window, too
    assert told[-1][2] and counts[-1] < len(good)


# What a user must change


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "^model: none is given. Write model=FOLDER, such as model=runs/<id>/best.$"),
        (["--dry-run"], "^model: none is given. Write model=FOLDER, such as model=runs/<id>/best.$"),
        (["--dry-run", "model=nowhere"], "model: nowhere: there is no such folder"),
        (["model=nowhere"], "model: nowhere: there is no such folder"),
        (["model={model}", "input=nothing.de"], "input: nothing.de: there is no such file"),
        (["model={model}", "output=."], "output: . must be a file, in a folder that exists"),
        (["model={model}", "output=no/where/out"], "output: no/where/out must be a file, in a folder that exists"),
        (["model={model}", "output={script}"], "exists. Choose another name, or replace it with overwrite=true"),
        (["model={model}", "num_beams=3"], "num_beams: unknown key here. It is written decoding.num_beams"),
        (["model={model}", "decoding.num_beam=3"], "Did you mean decoding.num_beams"),
        (["model={model}", "--beam", "3"], "beam"),
        (["model={model}", "decoding.temperature=2"], "temperature would change nothing: set do_sample=true too"),
        (["model={model}", "output_format=xml"], "output_format"),
        (["model={model}", "target_language=german"], "target_language: given 'german', which is no code of a langu"),
    ],
)
def test_mistakes_are_told_before_the_model_loads(recipe, copy_folder, arguments, message, monkeypatch):
    monkeypatch.setattr(recipe, "load_translator", lambda *_: pytest.fail("the model was loaded"))
    given = [argument.format(model=copy_folder, script=SCRIPT) for argument in arguments]
    with pytest.raises(ConfigError, match=message):
        recipe.main(given)


def test_an_id_of_the_hub_is_looked_up_there_first(recipe, tmp_path, monkeypatch):
    hub.look_up.cache_clear()
    asked = []

    def without_network(model, **_):
        asked.append(model)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "model_info", without_network)
    (tmp_path / "in").write_text("balo.\n")
    for output in ([], [f"output={tmp_path / 'out'}"]):
        with pytest.raises(NmtError, match="model: nobody/nothing: .*the Hub could not be reached .Name or service"):
            recipe.main(["model=nobody/nothing", f"input={tmp_path / 'in'}", *output])
    assert [path.name for path in tmp_path.iterdir()] == ["in"] and set(asked) == {"nobody/nothing"}


def test_all_mistakes_come_at_once(recipe):
    with pytest.raises(ConfigError) as error:
        recipe.main(["model=nowhere", "input=nothing", "output=no/where"])
    assert [finding.split(":")[0] for finding in error.value.findings] == ["model", "input", "output"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"balo.\n\xff\xfe\n", "in, line 2: this is not UTF-8: byte 0xFF at byte 6 of the file.*iconv"),
        (b"\xff\xfeb\0a\0l\0o\0", "in: this is UTF-16 text .*Convert it: iconv -f UTF-16 -t UTF-8 in > converted"),
        (b"balo.\nde\0lo\n", r"in, line 2: there is a NUL byte \(byte 8 of the file\)"),
    ],
)
def test_lines_that_are_no_text(run, data, message):
    with pytest.raises(DataError, match=message):
        run(data)


def test_a_line_over_the_limit_is_named(run, good):
    long = " ".join(["balo"] * 60)
    with pytest.raises(DataError, match=r"in, line 31: 61 tokens were given, the limit is 40: 'balo balo"):
        run("".join(f"{line}\n" for line in [*good[:30], long]).encode(), "decoding.split_sentences=false")


# Interruptions


@pytest.mark.parametrize("overwrite", ["false", "true"])
def test_killed_and_started_again_gives_the_same_bytes(
    recipe, copy_folder, tmp_path, monkeypatch, good, caplog, overwrite
):
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in good * 5))
    arguments = [f"model={copy_folder}", f"input={tmp_path / 'in'}", "device=cpu", "--config", "tiny"]
    recipe.main([*arguments, f"output={tmp_path / 'whole'}"])

    write, windows = files.PartialOutput.write, []

    def stop_at_third(self, lines, text, statistics):
        windows.append(len(lines))
        if len(windows) == 3:
            self._file.write(text.encode()[:50])  # torn: written, not noted
            raise KeyboardInterrupt
        write(self, lines, text, statistics)

    monkeypatch.setattr(files.PartialOutput, "write", stop_at_third)
    again = [*arguments, f"output={tmp_path / 'out'}", f"overwrite={overwrite}"]
    with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.INFO):
        recipe.main(again)
    assert "The same command goes on where it stopped." in caplog.text
    assert not (tmp_path / "out").exists() and (tmp_path / "out.partial").stat().st_size > 50
    windows.append(0)
    with caplog.at_level(logging.INFO):
        recipe.main(again)
    assert "going on after line 48." in caplog.text
    assert windows[:3] == [16, 32, 64] and windows[4] == 64
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    records = [json.loads((tmp_path / name).read_text()) for name in ("out.json", "whole.json")]
    for record in records:
        record["statistics"].pop("seconds")
        record.pop("environment")
    assert records[0] == records[1]


def test_what_was_begun_with_other_settings_is_not_continued(recipe, copy_folder, tmp_path, monkeypatch):
    (tmp_path / "in").write_text("balo.\n" * 100)
    arguments = [f"model={copy_folder}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "device=cpu"]
    journal = artifacts.write_json

    def stop(path, value):
        journal(path, value)
        if value["progress"]["num_lines"]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files.artifacts, "write_json", stop)
        recipe.main([*arguments, "--config", "tiny"])
    with pytest.raises(
        ConfigError,
        match=r"out.partial was begun with another decoding. Choose another output, or start anew with overwrite",
    ):
        recipe.main(arguments)
    (tmp_path / "in").write_text("delo.\n" * 100)
    with pytest.raises(ConfigError, match="was begun with another input"):
        recipe.main([*arguments, "--config", "tiny"])
    assert recipe.main([*arguments, "overwrite=true"]) == 0
    assert (tmp_path / "out").read_text() == "delo.\n" * 100


def test_a_model_that_changed_on_the_hub_does_not_go_on_with_a_file(recipe, copy_folder, tmp_path, monkeypatch):
    cache = tmp_path / "hub" / "models--some--model"
    (cache / "refs").mkdir(parents=True)
    for commit in ("0" * 40, "1" * 40):
        shutil.copytree(copy_folder, cache / "snapshots" / commit)
    (cache / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.look_up.cache_clear()
    (tmp_path / "in").write_text("balo.\n" * 100)
    arguments = ["model=some/model", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "--config", "tiny"]
    write = files.PartialOutput.write

    def stop(*arguments):
        write(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files.PartialOutput, "write", stop)
        recipe.main(arguments)
    begun = (tmp_path / "out.partial").read_bytes()
    (cache / "refs" / "main").write_text("1" * 40)
    with pytest.raises(ConfigError, match="out.partial was begun with another revision. .* with overwrite=true"):
        recipe.main(arguments)
    assert (tmp_path / "out.partial").read_bytes() == begun
    assert recipe.main([*arguments, "overwrite=true"]) == 0
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["model"] == {"path": "some/model", "hash": "some/model", "revision": "1" * 40}
    hub.look_up.cache_clear()


def test_a_link_to_nowhere_is_no_output(recipe, copy_folder, tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "no" / "folder")
    with pytest.raises(ConfigError, match="output: .*out must be a file, in a folder that exists"):
        recipe.main([f"model={copy_folder}", f"output={tmp_path / 'out'}"])


def test_an_output_that_is_being_written_is_left_alone(recipe, copy_folder, tmp_path):
    (tmp_path / "in").write_text("balo.\n")
    arguments = [f"model={copy_folder}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "device=cpu"]
    with artifacts.file_lock(tmp_path / "out.partial"), pytest.raises(NmtError, match="in use by another process"):
        recipe.main(arguments)


def test_the_lock_is_taken_before_the_journal_is_read_and_the_model_loads(recipe, copy_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "load_translator", lambda *_, **__: pytest.fail("the model was loaded"))
    (tmp_path / "in").write_text("balo.\n")
    for name in ("out.partial", "out.partial.json"):
        (tmp_path / name).write_text("what another process is just writing")
    arguments = [f"model={copy_folder}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}"]
    with artifacts.file_lock(tmp_path / "out.partial"), pytest.raises(NmtError, match="in use by another process"):
        recipe.main(arguments)


@pytest.mark.parametrize("name", ["out.json", "out.partial", "out.partial.json"])
@pytest.mark.parametrize("contents", ['{"mine": 1}', "[1, 2]", "no JSON"])
def test_files_of_the_user_are_never_replaced(recipe, copy_folder, tmp_path, monkeypatch, name, contents):
    monkeypatch.setattr(recipe, "load_translator", lambda *_, **__: pytest.fail("the model was loaded"))
    (tmp_path / "in").write_text("balo.\n")
    (tmp_path / name).write_text(contents)
    arguments = [f"model={copy_folder}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "overwrite=true"]
    with pytest.raises(ConfigError, match=f"output: .*{name} exists and is not from an earlier translation; .* Move"):
        recipe.main(arguments)
    assert (tmp_path / name).read_text() == contents and not (tmp_path / "out").exists()


def test_the_input_is_not_replaced(recipe, copy_folder, tmp_path):
    (tmp_path / "in").write_text("balo.\n")
    arguments = [f"model={copy_folder}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'in'}", "overwrite=true"]
    with pytest.raises(ConfigError, match="output: .*in is the input. Choose another name."):
        recipe.main(arguments)


def test_nothing_is_left_where_nothing_was_begun(recipe, copy_folder, tmp_path):
    (tmp_path / "in").write_text("balo.\n")
    arguments = [f"model={copy_folder}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "device=nowhere"]
    with pytest.raises(NmtError, match="device is 'nowhere'"):
        recipe.main(arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_gzip_output_is_packed_and_continued(recipe, copy_folder, tmp_path, monkeypatch, good):
    data = "".join(f"{line}\n" for line in good * 5)
    (tmp_path / "in").write_text(data)
    (tmp_path / "empty").write_text("")
    arguments = [f"model={copy_folder}", "device=cpu", "--config", "tiny"]
    recipe.main([*arguments, f"input={tmp_path / 'in'}", f"output={tmp_path / 'whole.gz'}"])
    recipe.main([*arguments, f"input={tmp_path / 'empty'}", f"output={tmp_path / 'none.gz'}"])
    assert gzip.decompress((tmp_path / "whole.gz").read_bytes()).decode() == data
    assert (tmp_path / "none.gz").stat().st_size and gzip.decompress((tmp_path / "none.gz").read_bytes()) == b""

    write, windows = files.PartialOutput.write, []

    def stop_at_third(self, lines, text, statistics):
        windows.append(len(lines))
        if len(windows) == 3:
            self._file.write(gzip.compress(text.encode())[:50])  # torn: written, not noted
            raise KeyboardInterrupt
        write(self, lines, text, statistics)

    monkeypatch.setattr(files.PartialOutput, "write", stop_at_third)
    again = [*arguments, f"input={tmp_path / 'in'}", f"output={tmp_path / 'out.gz'}"]
    with pytest.raises(KeyboardInterrupt):
        recipe.main(again)
    recipe.main(again)
    assert windows[2] == windows[3] == 64
    assert (tmp_path / "out.gz").read_bytes() == (tmp_path / "whole.gz").read_bytes()
    assert gzip.decompress((tmp_path / "out.gz").read_bytes()).decode() == data


def test_a_full_disk_is_told_and_what_was_written_stays(recipe, copy_folder, tmp_path, monkeypatch, good, caplog):
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in good))
    arguments = [f"model={copy_folder}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "device=cpu"]
    synced = []

    def full(descriptor):
        partial = tmp_path / "out.partial"
        if partial.exists() and os.path.samestat(os.fstat(descriptor), partial.stat()):
            synced.append(descriptor)
            if len(synced) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(
            NmtError, match=r"out.partial could not be written: the disk is full .* same command goes on"
        ):
            recipe.main([*arguments, "decoding.num_beams=1"])
    with caplog.at_level(logging.INFO):
        recipe.main([*arguments, "decoding.num_beams=1"])
    assert "going on after line 16." in caplog.text
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_stopped_from_outside(copy_folder, tmp_path, good, signal_number):
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in good * 15))
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    arguments = [f"model={copy_folder}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}"]
    command = [sys.executable, str(SCRIPT), *arguments, "decoding.window_size=16", "decoding.num_beams=2"]
    # A shell that runs the tests in the background has SIGINT ignored, and its children inherit that.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    journal = tmp_path / "out.partial.json"
    while not journal.exists() or '"num_lines": 0' in journal.read_text():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal_number)
    _, log = process.communicate()
    assert process.returncode == (130 if signal_number == signal.SIGINT else -signal.SIGKILL)
    assert signal_number == signal.SIGKILL or "The same command goes on where it stopped.\nInterrupted." in log
    assert not (tmp_path / "out").exists()
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0 and "going on after line" in done.stderr
    assert (tmp_path / "out").read_text() == (tmp_path / "in").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "out.json"]
