"""Train the toy network's SentencePiece vocabulary: ``python -m tools.toy.vocabulary --out DIR``.

Every word of the world, of the frames and of the downstream templates is one piece or a few; common English and all
printable ASCII are covered, and other characters fall back to bytes, so that no text yields unknown pieces.
The shipped vocabulary is frozen: its corpus is an earlier draft of the skills, and another one gives the pieces other
ids, which the shipped weights don't fit. Needs ``sentencepiece``, here alone; the shipped ``tokenizer.json`` is read
without it.
"""

from __future__ import annotations

import argparse
import io
import string
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast

from mmpt.bundled import MODEL_DIR
from tools.toy import lexicon, skills

PIECES = 1008
SENTINELS = 16
SEED = 7
ENGLISH = """
a about after again all also always an and another any are around as at away back be because become been before being
between big both but by call came can change child city come company could country day did different do does done down
each early end even every example eye face fact far few find first for found from gave get give go good government
great group had hand has have he head help her here high him his home hour house how however i idea if important in
information into is issue it its just keep kind know large last late later law lead least left less let life like line
little live long look made main make man many may me mean member might money month more morning most mother move much
must my name national near need never new next night no not now number of off often old on once one only open or order
other our out over own part party people perhaps person place play point police power president problem program public
put question quite read real really right room run said same saw say school second see seem service set several she
should show side since small so some something soon state still stop story street student study such sure system take
talk team tell than that the their them then there these they thing think this those though three through time to
today together told too took toward town turn two under until up upon us use used very wait walk want war was water way
we week well went were what when where which while white who whole why will with without woman word work world would
write year yes yet you young your ing ed er est ly ness ment tion able ful less un re pre dis over under
"""


def _corpus() -> list[str]:
    """Return the training text: the skills, every word often, English words, and all printable characters."""
    rng = Random(SEED)
    lines = [f"{source} {target}" for _ in range(4000) for _, (source, target) in [skills.draw(rng, rng.random())]]
    lines = [" ".join(word for word in line.split() if "<extra_id" not in word) for line in lines]
    for word in (*lexicon.words(), *skills.vocabulary()):
        lines.append(" ".join([word] * 60))
    english = ENGLISH.split()
    lines += [" ".join(rng.sample(english, 12)) for _ in range(600)]
    lines += [" ".join(string.ascii_letters + string.digits + string.punctuation)] * 40
    return lines


def train(directory: Path) -> PreTrainedTokenizerFast:
    """Train the vocabulary and save ``spiece.model``, ``tokenizer.json`` and ``tokenizer_config.json``.

    Args:
        directory: Folder to write to; made where missing.

    Returns:
        The tokenizer: pad 0, eos 1, unk 2, byte fallback, sentinels ``<extra_id_0>``... at the end.
    """
    import sentencepiece

    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_corpus()), model_writer=trained, model_type="unigram", vocab_size=PIECES,
        byte_fallback=True, required_chars="".join(sorted(set(string.printable) - set(string.whitespace))),
        character_coverage=1.0, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1, minloglevel=2,
    )  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "spiece.model").write_bytes(trained.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]
    tokenizer = wrap(pieces)
    tokenizer.save_pretrained(directory)
    return tokenizer


def wrap(pieces: list[tuple[str, float]]) -> PreTrainedTokenizerFast:
    """Build the tokenizer around trained pieces.

    Args:
        pieces: Piece and log probability, by id; the first three are pad, eos and unk.
    """
    core = Tokenizer(Unigram(pieces, unk_id=2, byte_fallback=True))
    core.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    sentinels = [f"<extra_id_{i}>" for i in range(SENTINELS)]
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=sentinels, model_max_length=512, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def main() -> None:
    """Train and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=MODEL_DIR, help="folder for the tokenizer files")
    tokenizer = train(parser.parse_args().out)
    words = (*lexicon.words(), *skills.vocabulary())
    split = [word for word in words if len(tokenizer.encode(word, add_special_tokens=False)) > 1]
    print(f"{len(tokenizer)} pieces; {len(words) - len(split)} of {len(words)} words are one piece; not: {split}")


if __name__ == "__main__":
    main()
