"""Token ids and texts against sentencepiece, tokenizers and tiktoken, both ways, on thousands of strings."""
import base64
import json
import random

import pytest
import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from text_samples import corpus, samples
from tokenize_tool import TokenizeTool

COUNT = 2500
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def check(tool, encode, decode, texts, special=False, bos=False):
    """Both ways on all texts; reports the first few differences."""
    wrong = []
    for text in texts:
        want = encode(text)
        got = tool.encode(text, special=special, bos=bos)
        if got != want:
            wrong.append(("encode", text, got, want))
        got, want = tool.decode(want, special=special), decode(want)
        if got != want:
            wrong.append(("decode", text, got, want))
        if len(wrong) > 3:
            break
    assert not wrong, "\n".join(map(repr, wrong))


# sentencepiece

SENTENCEPIECE = {
    "llama": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", split_digits=True,
                  remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, vocab_size=900),
    "bpe_nfkc": dict(model_type="bpe", vocab_size=900, user_defined_symbols=["<sep>", "ing", "Ａ", "  "]),
    "bpe_unknown": dict(model_type="bpe", vocab_size=500, character_coverage=0.98),
    "bpe_no_prefix": dict(model_type="bpe", vocab_size=900, byte_fallback=True, add_dummy_prefix=False),
    "unigram": dict(model_type="unigram", vocab_size=800),
    "unigram_nfkc_cf": dict(model_type="unigram", vocab_size=700, normalization_rule_name="nmt_nfkc_cf",
                            character_coverage=0.98, user_defined_symbols=["<sep>", "the", "日月"]),
    "unigram_bytes": dict(model_type="unigram", byte_fallback=True, normalization_rule_name="identity",
                          remove_extra_whitespaces=False, vocab_size=900, character_coverage=0.98),
}


def train_sentencepiece(folder, options):
    model = folder / "tokenizer.model"
    with open(model, "wb") as out:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus()), model_writer=out, num_threads=1, minloglevel=2, hard_vocab_limit=False,
            **options)
    return sentencepiece.SentencePieceProcessor(model_file=str(model))


@pytest.mark.parametrize("name", SENTENCEPIECE)
def test_sentencepiece(name, tmp_path):
    reference = train_sentencepiece(tmp_path, SENTENCEPIECE[name])
    texts = samples(COUNT, extra=["<sep>", "ing", "Ａ", "the", "日月"])
    rng = random.Random(3)
    with TokenizeTool(tmp_path / "tokenizer.model") as tool:
        check(tool, reference.encode, reference.decode, texts)
        assert tool.encode("hi", bos=True) == [reference.bos_id()] + reference.encode("hi")
        for _ in range(1000):
            ids = [rng.randrange(reference.vocab_size()) for _ in range(rng.randint(1, 12))]
            assert tool.decode(ids) == reference.decode(ids), ids


def test_sentencepiece_unused_pieces(tmp_path):
    """Pieces marked as unused are taken apart again, in both kinds of model."""
    from sentencepiece import sentencepiece_model_pb2
    for kind in ("bpe", "unigram"):
        train_sentencepiece(tmp_path, dict(model_type=kind, vocab_size=800))
        path = tmp_path / "tokenizer.model"
        model = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
        rng = random.Random(4)
        for piece in model.pieces:
            if piece.type == piece.NORMAL and len(piece.piece) > 1 and rng.random() < 0.3:
                piece.type = piece.UNUSED
        path.write_bytes(model.SerializeToString())
        reference = sentencepiece.SentencePieceProcessor(model_file=str(path))
        with TokenizeTool(path) as tool:
            check(tool, reference.encode, reference.decode, samples(1000))


# tokenizers

def train_byte_level(pre_tokenizer, normalizer=None, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1200, show_progress=False, special_tokens=SPECIALS,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


BYTE_LEVEL = {
    "gpt2": lambda: train_byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "gpt2_prefix_space": lambda: train_byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "smollm": lambda: train_byte_level(pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])),
    "digits_in_runs": lambda: train_byte_level(pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)])),
    "llama3": lambda: train_byte_level(split(LLAMA3), ignore_merges=True),
    "qwen2": lambda: train_byte_level(split(QWEN2), normalizer=normalizers.NFC()),
    "nfkd": lambda: train_byte_level(split(QWEN2), normalizer=normalizers.Sequence(
        [normalizers.NFKD(), normalizers.Replace(Regex(r"\s+"), " ")])),
    "no_regex": lambda: train_byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
}
for behavior in ("removed", "merged_with_previous", "merged_with_next", "contiguous"):
    for invert in (False, True):
        BYTE_LEVEL[f"split_{behavior}{'_inverted' if invert else ''}"] = (
            lambda behavior=behavior, invert=invert: train_byte_level(pre_tokenizers.Sequence([
                pre_tokenizers.Split(Regex(r"\s|\d\w"), behavior, invert=invert),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])))


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_byte_level(name, tmp_path):
    tokenizer = BYTE_LEVEL[name]()
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    texts = samples(COUNT if "split_" not in name else 600, extra=SPECIALS)
    rng = random.Random(5)
    with TokenizeTool(path) as tool:
        tokenizer.encode_special_tokens = True
        check(tool, lambda t: tokenizer.encode(t).ids, lambda i: tokenizer.decode(i), texts)
        tokenizer.encode_special_tokens = False
        check(tool, lambda t: tokenizer.encode(t).ids, lambda i: tokenizer.decode(i, skip_special_tokens=False), texts,
              special=True)
        for _ in range(1000):
            ids = [rng.randrange(tokenizer.get_vocab_size()) for _ in range(rng.randint(1, 12))]
            assert tool.decode(ids) == tokenizer.decode(ids), ids


def train_llama2(normalizer, pre_tokenizer, decoder, fuse_unk=True, byte_fallback=True):
    """A sentencepiece-like BPE of characters."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse_unk, byte_fallback=byte_fallback))
    if normalizer:
        trained.normalizer = normalizer
    if pre_tokenizer:
        trained.pre_tokenizer = pre_tokenizer
    trained.decoder = decoder
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)] if byte_fallback else []
    trainer = trainers.BpeTrainer(vocab_size=1300, show_progress=False, limit_alphabet=150, max_token_length=16,
                                  special_tokens=["<unk>", "<s>", "</s>"] + byte_tokens)
    lines = [w for line in corpus() for w in line.split(" ")] if pre_tokenizer is None else corpus()
    trained.train_from_iterator(lines, trainer)
    # The trainer takes the byte tokens for special ones; in real files they are plain vocabulary.
    spec = json.loads(trained.to_str())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(spec))


LLAMA2_NORMALIZER = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
LLAMA2_DECODER = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                    decoders.Strip(" ", 1, 0)])
LLAMA2 = {
    "legacy": lambda: train_llama2(LLAMA2_NORMALIZER, None, LLAMA2_DECODER),
    "unknown": lambda: train_llama2(LLAMA2_NORMALIZER, None, LLAMA2_DECODER, byte_fallback=False),
    "unknown_unfused": lambda: train_llama2(LLAMA2_NORMALIZER, None, LLAMA2_DECODER, fuse_unk=False, byte_fallback=False),
    "metaspace_first": lambda: train_llama2(
        None, pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False), LLAMA2_DECODER),
    "metaspace_always": lambda: train_llama2(
        None, pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=True), decoders.Metaspace("▁", "always"),
        byte_fallback=False),
    "metaspace_never": lambda: train_llama2(
        None, pre_tokenizers.Metaspace("▁", prepend_scheme="never", split=True), decoders.Metaspace("▁", "never"),
        byte_fallback=False),
}


@pytest.mark.parametrize("name", LLAMA2)
def test_llama2_like(name, tmp_path):
    tokenizer = LLAMA2[name]()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    texts = samples(COUNT, extra=["<s>", "</s>", "<unk>"])
    with TokenizeTool(path) as tool:
        tokenizer.encode_special_tokens = True
        check(tool, lambda t: tokenizer.encode(t).ids, lambda i: tokenizer.decode(i), texts, bos=True)
        tokenizer.encode_special_tokens = False
        check(tool, lambda t: tokenizer.encode(t, add_special_tokens=False).ids,
              lambda i: tokenizer.decode(i, skip_special_tokens=False), texts, special=True)


def test_added_tokens(tmp_path):
    """Every flag of an added token, with and without a normalizer."""
    flags = [dict(), dict(lstrip=True), dict(rstrip=True), dict(lstrip=True, rstrip=True), dict(single_word=True),
             dict(single_word=True, lstrip=True)]
    # A character of Latin-1 is left out: the library's byte-level decoder takes it for a byte.
    texts = ["<a0>", "<a1>", "<a2>", "<a3>", "word", "слово", "<n0>", "<n1>", "<n2>", "ing", "<a", "1>", "<a1><a2>"]
    for make in (BYTE_LEVEL["qwen2"], LLAMA2["legacy"], LLAMA2["metaspace_first"]):
        tokenizer = make()
        tokenizer.add_tokens([AddedToken(t, normalized=False, **f) for t, f in zip(texts, flags)])
        tokenizer.add_tokens([AddedToken(t, normalized=True, **f) for t, f in zip(texts[6:10], flags)])
        tokenizer.add_special_tokens([AddedToken("<special>", lstrip=True, rstrip=True), AddedToken("<special>>")])
        path = tmp_path / "tokenizer.json"
        tokenizer.save(str(path))
        extra = texts + [" <a1> ", "  <a2>  ", "<a3> <a3>", "xword", "word x", " word\n", "<special>", " <special> x",
                         "<special>>", "сло\u0301во", "running <n0>", "\u3000<n2>\u3000"]
        with TokenizeTool(path) as tool:
            tokenizer.encode_special_tokens = True
            check(tool, lambda t: tokenizer.encode(t).ids, lambda i: tokenizer.decode(i), samples(1500, 6, extra))
            tokenizer.encode_special_tokens = False
            check(tool, lambda t: tokenizer.encode(t).ids,
                  lambda i: tokenizer.decode(i, skip_special_tokens=False), samples(1500, 7, extra), special=True)


def test_merges_as_pairs_and_as_strings(tmp_path):
    tokenizer = BYTE_LEVEL["gpt2"]()
    spec = json.loads(tokenizer.to_str())
    pairs = [m if isinstance(m, list) else m.split(" ") for m in spec["model"]["merges"]]
    for name, merges in (("pairs", pairs), ("strings", [" ".join(m) for m in pairs])):
        spec["model"]["merges"] = merges
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(spec))
        with TokenizeTool(path) as tool:
            check(tool, lambda t: tokenizer.encode(t).ids, lambda i: tokenizer.decode(i, skip_special_tokens=False),
                  samples(200), special=True)


# tiktoken

def test_tiktoken(tmp_path):
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken._educational import bpe_train
    ranks = bpe_train("\n".join(corpus(lines=250)), 600, LLAMA3, visualise=None)
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"".join(base64.b64encode(k) + b" %d\n" % v for k, v in sorted(ranks.items(), key=lambda x: x[1])))
    with TokenizeTool(path) as tool:
        info = tool.ask(info=True)
        assert info["size"] == len(ranks) + 256 and info["bos"] == len(ranks)
        assert info["eos"] == [len(ranks) + i for i in (1, 8, 9)]
        specials = {"<|begin_of_text|>": len(ranks), "<|end_of_text|>": len(ranks) + 1,
                    "<|start_header_id|>": len(ranks) + 6, "<|end_header_id|>": len(ranks) + 7,
                    "<|eot_id|>": len(ranks) + 9, "<|reserved_special_token_247|>": len(ranks) + 255}
        reference = tiktoken.Encoding("llama3", pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens=specials)
        texts = samples(COUNT, extra=list(specials))
        check(tool, reference.encode_ordinary, lambda i: reference.decode(i), texts)
        check(tool, lambda t: reference.encode(t, allowed_special="all"), lambda i: reference.decode(i), texts, special=True)


# GGUF: the same tokenizers, as llama.cpp's converter writes them

def gguf_of_json(spec, pre, **more):
    vocabulary = dict(spec["model"]["vocab"])
    types = {}
    for token in spec["added_tokens"]:
        vocabulary[token["content"]] = token["id"]
        types[token["id"]] = 3 if token["special"] else 4
    by_id = {i: t for t, i in vocabulary.items()}
    merges = [m if isinstance(m, str) else " ".join(m) for m in spec["model"]["merges"]]
    return dict(model="gpt2", pre=pre, tokens=[by_id[i] for i in range(len(by_id))],
                token_types=[types.get(i, 1) for i in range(len(by_id))], merges=merges, **more)


@pytest.mark.parametrize("name, pre", [("gpt2", "gpt-2"), ("smollm", "smollm"), ("llama3", "llama-bpe"), ("qwen2", "qwen2")])
def test_gguf_byte_level(name, pre, tmp_path):
    tokenizer = BYTE_LEVEL[name]()
    path = tmp_path / "fields.json"
    path.write_text(json.dumps(gguf_of_json(json.loads(tokenizer.to_str()), pre, bos_id=1, eos_id=2, add_bos=True)))
    with TokenizeTool("--gguf", path) as tool:
        check(tool, lambda t: [1] + tokenizer.encode(t).ids, lambda i: tokenizer.decode(i, skip_special_tokens=False),
              samples(800, extra=SPECIALS), special=True, bos=True)


def test_gguf_llama(tmp_path):
    reference = train_sentencepiece(tmp_path, SENTENCEPIECE["llama"])
    n = reference.vocab_size()
    kind = lambda i: (2 if reference.is_unknown(i) else 3 if reference.is_control(i) else 6 if reference.is_byte(i) else 1)
    path = tmp_path / "fields.json"
    path.write_text(json.dumps(dict(model="llama", tokens=[reference.id_to_piece(i) for i in range(n)],
                                    scores=[reference.get_score(i) for i in range(n)],
                                    token_types=[kind(i) for i in range(n)], bos_id=1, eos_id=2, unknown_id=0)))
    with TokenizeTool("--gguf", path) as tool:
        check(tool, lambda t: [1] + reference.encode(t), reference.decode, samples(800), bos=True)
