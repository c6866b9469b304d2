"""Metrics of generated text."""

from __future__ import annotations

import re
import string
import sys
from collections import Counter
from functools import cache
from typing import Any
from unicodedata import normalize as unicode_form

import numpy as np

from mmpt.data.metrics.answers import Answers, Floats
from mmpt.data.metrics.forms import nfc
from mmpt.data.metrics.metric import Metric, of_sums

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def token_f1(prediction: str, target: str) -> float:
    """SQuAD's F1 of words: lower case, without punctuation and English articles; 1 where both have no word."""
    one, other = (_words(text) for text in (prediction, target))
    if not one or not other:
        return float(one == other)
    same = sum((Counter(one) & Counter(other)).values())
    return 2 * same / (len(one) + len(other))


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", unicode_form("NFKC", text).lower().translate(_PUNCTUATION)).split()


def rouge(kind: str) -> Metric:
    """The mean F-measure of one kind of ROUGE, as the package rouge-score computes it (without stemming)."""

    def score(prediction: str, target: str) -> float:
        return float(_scorer(kind).score(nfc(target), nfc(prediction))[kind].fmeasure)

    return Metric.mean(kind, score)


@cache
def _scorer(kind: str) -> Any:
    from rouge_score import rouge_scorer

    # absl's handler would close a redirected sys.stderr of this moment when logging is configured again
    rouge_scorer.logging.get_absl_handler().python_handler.setStream(sys.__stderr__)
    return rouge_scorer.RougeScorer([kind])


def _bleu_counts(answers: Answers) -> Floats:
    """(N, 10): matching n-grams and all n-grams for n = 1 to 4, words of the prediction and of the target."""
    from sacrebleu.metrics import BLEU

    bleu = BLEU(effective_order=True)  # only spares a warning: the counts do not depend on it
    pairs = zip(answers.targets, answers.predictions, strict=True)
    scores = (bleu.sentence_score(nfc(text), [nfc(target)]) for target, text in pairs)
    return np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in scores], dtype=np.float64)


def _bleu(sums: Floats) -> Floats:
    """The corpus BLEU of sacrebleu with its defaults, as a share of 1."""
    from sacrebleu.metrics import BLEU

    rows = sums.astype(np.int64).tolist()
    return np.array([BLEU.compute_bleu(row[:4], row[4:8], row[8], row[9]).score / 100 for row in rows])


ROUGE_L, ROUGE_1, ROUGE_2 = (rouge(kind) for kind in ("rougeL", "rouge1", "rouge2"))
TOKEN_F1 = Metric.mean("token_f1", token_f1)
BLEU_SCORE = Metric("bleu", _bleu_counts, of_sums(_bleu))
