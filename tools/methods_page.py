"""Print docs/methods.md, made from the code: ``python -m tools.methods_page > docs/methods.md`` (``make docs``)."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import torch
import yaml
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from mmpt.attention.prefix import SiteShape
from mmpt.config.typed_build import fields_of
from mmpt.methods import create, names, options_class, parse
from mmpt.methods.base import BackboneShape, Method

CONF = Path(__file__).resolve().parents[1] / "conf" / "method"
T5_BASE: dict[str, Any] = {"d_model": 768, "d_kv": 64, "num_heads": 12, "d_ff": 3072, "num_layers": 12}
COLUMNS = ("method", "parameters", "of all", "learning rates by group", "where", "`init`", "cached", "source")
HEAD = """<!-- Written by `make docs` from the docstrings of mmpt/methods and the files of conf/method; edit those. -->
# Methods

`method=NAME` chooses one; `conf/method/NAME.yaml` has its options with comments. A method of your own:
[own_method.md](own_method.md).

The table is for each file's defaults on the shape of t5-base ({total} parameters): trained parameters and their share;
the learning rates of the parameter groups that these defaults have; where the method acts; what it can start from
(`method.init`, the default in bold: `text` needs `method.init_text`, `adapter` needs `method.init_adapter=RUN_DIR`);
and whether the encoder's output is a constant, which [the cache](cache.md) then keeps. Methods with `method.sites` lose
that in part with site `encoder`: layers below the first with a prefix still run once.

"""


def main() -> None:
    """Print the page."""
    with torch.device("meta"):
        total = sum(parameter.numel() for parameter in _backbone().parameters())
        rows = [_row(name, total) for name in names()]
    lines = ["| " + " | ".join(cells) + " |" for cells in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
    print(HEAD.format(total=f"{total:,}") + "\n".join(lines))
    for name in names():
        print(f"\n## {name}\n\n{_docstring(name)}")


def _backbone() -> nn.Module:
    model: nn.Module = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **T5_BASE))
    return model.requires_grad_(False)


def _row(name: str, total: int) -> list[str]:
    """One method's cells, from its class on a backbone without memory."""
    listed = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    rates = listed.pop("lr")
    options = {key: value for key, value in listed.items() if key != "name"}
    site = SiteShape(T5_BASE["num_layers"], T5_BASE["num_heads"], T5_BASE["d_kv"])
    method = create(
        parse(name, options), BackboneShape(T5_BASE["d_model"], dict.fromkeys(("encoder", "decoder", "cross"), site))
    )
    if type(method).attach is not Method.attach:
        method.attach(_backbone())
    groups = method.parameter_groups()
    count = sum(parameter.numel() for group in groups.values() for parameter in group)
    starts = fields_of(options_class(name)).get("init")
    return [
        f"[{name}](#{name})",
        f"{count:,}",
        f"{count / total:.3%}",
        ", ".join(f"{group} {rates[group]:g}" for group in groups),
        _where(method),
        "–"
        if starts is None
        else ", ".join(f"**{word}**" if word == options["init"] else word for word in get_args(starts)),
        "no" if method.cacheable_layers.count is None else "yes",
        _source(name),
    ]


def _where(method: Method) -> str:
    sites = getattr(method.options, "sites", None)
    if sites is None:
        return re.sub(r"^method=\w+ ", "", method.cacheable_layers.reason or "")
    return "keys and values of " + " and ".join(sites)


@cache
def _docstring(name: str) -> str:
    text = (import_module(f"mmpt.methods.{name}.method").__doc__ or "").strip()
    return re.sub(r":\w+:`([^`]+)`", r"`\1`", text)


def _source(name: str) -> str:
    """What the first lines of a method's docstring name in brackets, with a year."""
    source = re.search(r"\(([^()]*\d{4}[^()]*)\)", _docstring(name).split("\n\n")[0])
    return "–" if source is None else " ".join(source[1].split())


if __name__ == "__main__":
    main()
