"""A report of runs from elsewhere: it says what it can, in every format, and never breaks."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from mmpt.report.load import load
from mmpt.report.records import as_csv
from mmpt.report.tables import latex
from tests.commands import report as main
from tests.hostile.cases import JSON, TEXTS, as_json, both, check, spoilt_bytes, spoilt_json, spoilt_values
from tests.report.builder import HOSTILE, config, result, write, write_masks

LIGHT = "md,tex,csv,json,jsonl,peft"
ALL = f"{LIGHT},html,parquet"


def report(root: Path, out: Path, formats: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Report a folder; the good run in it must be there, and the console must get no commands."""
    shutil.rmtree(out, ignore_errors=True)
    assert main([str(root), "--out", str(out), "--baseline", "prefix", "--formats", formats]) in (0, 1)
    told = capsys.readouterr()
    assert "prefix" in told.out
    assert all(sign.isprintable() or sign == "\n" for sign in told.out + told.err)
    for path in out.rglob("*"):
        assert path.resolve().is_relative_to(out.resolve())
    return (out / "report.html").read_text(encoding="utf-8") if "html" in formats else ""


def files_of(root: Path) -> dict[str, tuple[Path, Any]]:
    """A good run, a second one to be spoilt, and what each file of it holds."""
    write(root, "prefix", 1, answers=[True, False])
    run = write(root, "smop", 1, 0.8, answers=[True, True])
    write_masks(run)
    (run / "environment.json").write_text("{}")
    held = {path.name: (path, path.read_bytes()) for path in sorted(run.glob("*.*"))}
    return {**held, "adapter": (run / "adapter" / "adapter.safetensors", b"")}


def spoilt_file(name: str, content: bytes) -> st.SearchStrategy[bytes]:
    if name == "config.yaml":
        values = spoilt_values(yaml.safe_load(content)).map(lambda value: yaml.dump(value, Dumper=yaml.Dumper).encode())
        own = st.sampled_from(
            [b"a: &a [x]\nb: [*a, *a]\n", b"? [1, 2]\n: 3\n", b"1: 2\nx: 3\n", b"2026-13-45: 1\n", b"- a"]
        )
        return st.one_of(values.filter(lambda text: b"!!python" not in text), spoilt_bytes(content), own)
    if name.endswith(".jsonl"):
        first = json.loads(content.splitlines()[0])
        return st.lists(spoilt_json(first), max_size=3).map(b"\n".join)
    return spoilt_json(json.loads(content))


@both(6, 1000)
def test_one_spoilt_file(cases: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = files_of(tmp_path / "runs")
    blob = held.pop("adapter")[0].read_bytes()

    def holds(case: tuple[str, bytes], weights: bytes) -> None:
        name, content = case
        path, before = held[name]
        path.write_bytes(content)
        (path.parent / "adapter" / "adapter.safetensors").write_bytes(weights)
        report(tmp_path / "runs", tmp_path / "out", f"{LIGHT},html" if cases > 100 else LIGHT, capsys)
        path.write_bytes(before)

    names = st.sampled_from(sorted(held))
    files = names.flatmap(lambda name: st.tuples(st.just(name), spoilt_file(name, held[name][1])))
    check(cases, holds, files, st.one_of(st.just(blob), spoilt_bytes(blob)))


@both(10, 500)
def test_exports_and_results(cases: int, tmp_path: Path) -> None:
    """Files that a report can be told to read: results by line, and exports of W&B."""
    one = {"name": "a", "state": "finished", "config": config(), "summary": {"test/accuracy": 0.5}}

    def holds(lines: list[bytes], export: bytes, table: bytes) -> None:
        for name, content in (("r.jsonl", b"\n".join(lines)), ("r.json", export), ("r.csv", table)):
            (tmp_path / name).write_bytes(content)
            for run in load([tmp_path / name]).runs:
                assert run.name.isprintable() and run.problem.isprintable()
                run.score(), run.metric, run.known("task")

    rows = st.builds(lambda a, b: f'name,config,summary\nx,"{a}","{b}"\n'.encode("utf-8", "replace"), TEXTS, TEXTS)
    exports = st.one_of(spoilt_json([one]), JSON.map(as_json))
    check(cases, holds, st.lists(spoilt_json(result()), max_size=2), exports, st.one_of(rows, st.binary(max_size=80)))


BOMBS = {
    "references of references": "a: &a [x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)),
    "a value in itself": "a: &a\n  b: *a\n",
    "depth": "a: " + "[" * 50_000,
    "depth in lines": "".join(" " * i + "a:\n" for i in range(2000)),
    "an object": "a: !!python/object/apply:os.system ['touch CANARY']\n",
    "keys of several kinds": "method: {1: 2, x: 3, null: 4}\n",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_yaml_that_grows_or_acts(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    canary = tmp_path / "canary"
    write(tmp_path / "runs", "prefix", 1)
    run = write(tmp_path / "runs", "smop", 1, 0.8)
    (run / "config.yaml").write_text(BOMBS[kind].replace("CANARY", str(canary)))
    began = time.process_time()
    report(tmp_path / "runs", tmp_path / "out", ALL, capsys)
    assert time.process_time() - began < 60 and not canary.exists()
    assert (tmp_path / "out" / "report.json").stat().st_size < 1_000_000


SIGNS = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\" onmouseover='alert(1)", "-->", "]]>"]


@pytest.mark.parametrize(
    "text", ["".join(SIGNS), "".join(HOSTILE), "\x1b]0;owned\x07{{ 7*7 }}"], ids=["html", "any", "esc"]
)
def test_every_text_of_a_run_is_escaped(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names, labels, warnings, settings and metrics, in tables, titles, pictures and the embedded data."""
    from html.parser import HTMLParser

    write(tmp_path / "runs", "prefix", 1)
    settings = {"method.sites": [text], "method.note": text, "optimizer.name": text}
    for score, note in ((0.7, "a"), (0.8, text)):
        more = {"settings": {**settings, "method.note": note}, "warnings": [text], "name": f"r{score}", "task": text}
        run = write(tmp_path / "runs", text, 1, score, **more)
        write_masks(run)
    status = {"status": "failed", "error": {"message": text, "type": text}}
    write(tmp_path / "runs", text, 2, status=status, name=f"failed {text.replace('/', '')}".replace("\0", ""))
    html = report(tmp_path / "runs", tmp_path / "out", ALL, capsys)
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append(tag)
            assert not [name for name, _ in attrs if name.startswith("on")], attrs

    Reader().feed(html)
    assert found.count("script") == 2 and "img" not in found, "the page's own script and its data"
    assert "49" not in html or "{{" not in text or "{{ 7*7 }}" in html


def test_texts_cannot_command_latex_or_a_spreadsheet() -> None:
    assert latex(r"\input{/etc/passwd} 5% $x$ #1 a_b {c} ~ ^ & \write18{rm}") == (
        r"\textbackslash{}input\{/etc/passwd\} 5\% \$x\$ \#1 a\_b \{c\} \textasciitilde{} \textasciicircum{} \& "
        r"\textbackslash{}write18\{rm\}"
    )
    for start in "=+-@\t\r＝":
        rows = list(csv.reader(io.StringIO(as_csv([{"task": f"{start}HYPERLINK(1)"}]), newline="")))
        assert f"'{start}HYPERLINK(1)" in rows[1]


@pytest.mark.slow
def test_latex_of_hostile_names_compiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = shutil.which("pdflatex")
    if engine is None:
        pytest.skip("no pdflatex on this machine")
    for text in (r"\input{/etc/passwd}", "100% & #1 _^~{}"):
        write(tmp_path / "runs", text, 1, name=f"r{len(text)}")
    write(tmp_path / "runs", "prefix", 1)
    report(tmp_path / "runs", tmp_path / "out", "tex", capsys)
    body = (tmp_path / "out" / "report.tex").read_text()
    (tmp_path / "t.tex").write_text(
        rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{body}\end{{document}}"
    )
    done = subprocess.run([engine, "-interaction=nonstopmode", "t.tex"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
