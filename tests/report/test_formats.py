"""The texts of each format: escaping, best and second, the fields of peft's result files, published figures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mmpt.report.columns import COLUMNS, record
from mmpt.report.compare import compare
from mmpt.report.drawing import style
from mmpt.report.figures import draw
from mmpt.report.figures import scores as figures_of_scores
from mmpt.report.groups import Row, group
from mmpt.report.load import load
from mmpt.report.page import page
from mmpt.report.peft_format import experiment
from mmpt.report.published import figures
from mmpt.report.records import as_csv
from mmpt.report.tables import full, latex, markdown, paper
from tests.report.builder import HOSTILE, write


def rows(place: Path) -> list[Row]:
    for method, score in (("prefix", 0.7), ("smop", 0.8), ("lora", 0.6)):
        for seed in (1, 2):
            write(place, method, seed, score + seed / 100)
    return group(load([place]).runs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("50% & $5 #1 a_b", r"50\% \& \$5 \#1 a\_b"),
        ("a^b~c<d>", r"a\textasciicircum{}b\textasciitilde{}c\textless{}d\textgreater{}"),
        ("two\nlines\x1b[31m", "two lines [31m"),
    ],
)
def test_latex_escapes(text: str, expected: str) -> None:
    assert latex(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("<script>&", "&lt;script&gt;&amp;"),
        ("[x](http://y) `c` *d* _e_ not_a", r"\[x\](http://y) \`c\` \*d\* \_e\_ not_a"),
        ("a\n| b", r"a \| b"),
    ],
)
def test_markdown_escapes(text: str, expected: str) -> None:
    assert markdown(text) == expected


def test_latex_marks_best_and_second_and_is_well_formed(tmp_path: Path) -> None:
    text = paper(rows(tmp_path), figures())
    assert r"\label{tab:mmpt-overview}" in text and "over 2 seeds" in text and r"\textbf{81.5}$_{\pm 0.7}$" in text
    assert r"\textbf{0.815}$_{\pm 0.007}$" in text and r"\underline{0.715}$_{\pm 0.007}$" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\begin{tabular}") == 2
    assert text.count("{") == text.count("}") and len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    for table in re.findall(r"\\begin\{tabular\}\{([lr]*)\}(.*?)\\end\{tabular\}", text, re.S):
        lines = [line for line in table[1].splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(table[0])}
    assert r"$^\dagger$" in text and "arXiv 2502.04501" in text


def test_markdown_has_every_statistic(tmp_path: Path) -> None:
    text = full(rows(tmp_path), figures())
    assert "| smop | 2 | **0.815** ± 0.007 | 0.815 | 0.820 | – | 0.600 | 100 | 400 | 10.0 | 5 | 5 |" in text
    assert "<ins>0.715</ins>" in text and "Published figures for rte, not run here" in text
    assert "| DePT † | 0.791 | 76.8K | accuracy | T5-base |" in text


EXTREME = {"accuracy": (0.0, 1.0), "matthews": (-1.0, 1.0), "own": (0.0, 100.0)}


@pytest.mark.parametrize("metric", EXTREME)
def test_no_printed_interval_leaves_the_range(metric: str, tmp_path: Path) -> None:
    low, high = EXTREME[metric]
    near = [low + (high - low) * share for share in (0.01, 0.02, 0.99)]
    for method, several in (("prefix", near), ("smop", near[::-1]), ("lora", [high] * 3)):
        for seed, score in enumerate(several):
            scores = {name: {metric: score} for name in ("test", "validation", "majority")}
            more = {"metric_range": [low, high]} if metric == "own" else {}
            write(tmp_path, method, seed, metric=metric, scores=scores, answers=[True, False, seed == 1], **more)
    found = group(load([tmp_path]).runs)
    compare(found, "prefix")
    said = full(found)
    intervals = re.findall(r"([-+][\d.]+ )?\[(-?[\d.]+), (-?[\d.]+)\]", said)
    assert len(intervals) == 5  # of three means and of two differences
    for difference, *ends in intervals:
        least, most = (low - high, high - low) if difference else (low, high)
        assert least <= float(ends[0]) <= float(ends[1]) <= most
    for values in map(record, found):
        assert low <= values["low"] <= values["mean"] <= values["high"] <= high


@pytest.mark.parametrize("seeds", [1, 2])
def test_below_three_seeds_no_interval_is_shown_and_it_says_why(seeds: int, tmp_path: Path) -> None:
    for method in ("prefix", "smop"):
        for seed in range(seeds):
            write(tmp_path, method, seed, 0.5 + seed * len(method) / 100)
    found = group(load([tmp_path]).runs)
    compare(found, "prefix")
    html = page(found, [], [], [])
    reason = "none below three seeds, since it would be wider than what it tells"
    for text in (full(found), paper(found), html):
        assert reason in text and not re.search(r"\[-?\d\.\d+, ", text.partition("<script type")[0])
    assert "No 95 % interval for 2 of 2 settings, which have fewer than three seeds: with two seeds it would" in html
    assert ("p, seeds (main): the main p value" in html) == (seeds == 2)


def test_the_bar_of_a_figure_is_the_interval_on_any_scale(tmp_path: Path) -> None:
    for seed, score in enumerate((20.0, 30.0, 45.0)):
        scores = {name: {"own": score} for name in ("test", "validation", "majority")}
        write(tmp_path, seed=seed, metric="own", metric_range=[0, 100], scores=scores)
    (row,) = group(load([tmp_path]).runs)
    assert row.summary and row.summary.low is not None and row.summary.low < 20 - 1
    with style():
        drawn = figures_of_scores([row])
    assert [row.summary.low, row.summary.high] in [list(line.get_xdata()) for line in drawn.axes.lines]


def test_every_mark_lies_inside_its_figure(tmp_path: Path) -> None:
    found = rows(tmp_path)
    with style():
        drawings, _ = draw(found)
    marks = 0
    for drawing in drawings:
        axes = drawing.canvas.axes[0]
        for line in axes.lines:
            marks += 1
            for values, (low, high) in ((line.get_xdata(), axes.get_xlim()), (line.get_ydata(), axes.get_ylim())):
                assert min(low, high) <= min(values) and max(values) <= max(low, high), drawing.title
    assert marks > 20
    texts = [text.get_text() for drawing in drawings[1:3] for text in drawing.axes.texts]
    assert texts == ["smop", "smop"]  # the Pareto fronts, named


def test_csv_texts_are_no_formulas(tmp_path: Path) -> None:
    write(tmp_path, "=1+1", name="x")
    (row,) = group(load([tmp_path]).runs)
    line = as_csv([record(row)]).splitlines()[1]
    assert ",'=1+1," in line and list(record(row)) == [column.name for column in COLUMNS]


def test_every_field_of_pefts_result_files(tmp_path: Path) -> None:
    directory = write(tmp_path)
    (directory / "environment.json").write_text(
        json.dumps({"platform": "Linux-6.1.0-13-x86_64-with-glibc2.36", "cpu": "c", "gpus": ["g"], "versions": {}})
    )
    (run,) = load([tmp_path]).runs
    found = experiment(run)
    run_info, train_info, meta_info = (found[name] for name in ("run_info", "train_info", "meta_info"))
    names = "created_at total_time experiment_name peft_branch train_config peft_config error_msg"
    assert list(run_info) == names.split()
    names = (
        "model_id dtype max_seq_length batch_size batch_size_eval max_steps eval_steps compile use_gc query_template "
    )
    names += "seed grad_norm_clip optimizer_type optimizer_kwargs lr_scheduler use_amp autocast_adapter_dtype "
    names += "generation_kwargs attn_implementation init_kv_cache_prefix"
    assert list(run_info["train_config"]) == names.split()
    names = "accelerator_memory_reserved_avg accelerator_memory_max accelerator_memory_reserved_99th train_time "
    names += "file_size num_trainable_params num_total_params status metrics"
    assert list(train_info) == names.split()
    evaluation, test = train_info["metrics"]
    names = "step|valid accuracy|train loss|train samples|train time|eval time|tokens / sec|mem allocated avg|"
    names += "mem reserved avg|elapsed time"
    assert set(evaluation) == set(names.split("|"))
    names = "step|test accuracy|train loss|train samples|train total tokens|forgetting"
    assert set(test) == set(names.split("|"))
    assert list(meta_info) == ["model_info", "dataset_info", "package_info", "system_info", "pytorch_info"]
    assert set(meta_info["model_info"]) >= {"sha", "created_at"} and set(meta_info["dataset_info"]) >= {
        "sha",
        "created_at",
    }
    packages = ("transformers", "peft", "datasets", "bitsandbytes", "torch")
    assert set(meta_info["package_info"]) == {f"{p}-{kind}" for p in packages for kind in ("version", "commit-hash")}
    system = {"system": "Linux", "release": "6.1.0-13", "version": None, "machine": "x86_64"}
    assert meta_info["system_info"] == {**system, "processor": "c", "accelerator": "g"}
    assert (evaluation["step"], evaluation["valid accuracy"], evaluation["train samples"]) == (8, 0.6, 64)
    assert (test["test accuracy"], train_info["status"], run_info["train_config"]["seed"]) == (0.7, "success", 1)


def test_a_failed_run_has_pefts_fields_too(tmp_path: Path) -> None:
    write(tmp_path, status={"status": "failed", "error": {"message": "out of memory"}})
    found = experiment(load([tmp_path]).runs[0])
    assert found["run_info"]["error_msg"] == "out of memory" and found["train_info"]["status"] == "failed"
    assert found["train_info"]["num_trainable_params"] is None


def test_published_figures_have_source_and_setting() -> None:
    found = figures()
    assert all(
        figure.source and figure.setting and figure.backbone and 0 < float(figure.score) <= 1 for figure in found
    )
    (one,) = [figure for figure in found if (figure.task, figure.method) == ("rte", "ULPT (r=64)")]
    assert (one.score, one.parameters, one.backbone) == ("0.813", "7.9K", "T5-base")
    (dev,) = [figure for figure in found if (figure.task, figure.method) == ("cb", "multi-mask prefix tuning")]
    assert dev.score == "1.000" and "not test" in dev.setting


@pytest.mark.parametrize("name", HOSTILE)
def test_no_hostile_name_survives_in_latex(name: str) -> None:
    escaped = re.sub(
        r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}", "", latex(name)
    )
    assert not re.search(r"\\(?![&%$#_{}])", escaped)
