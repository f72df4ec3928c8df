#!/usr/bin/env python3
"""Train the small LLaMA checkpoint that ships in this directory.

The text is the six novels of Jane Austen (public domain), as packaged by
Debian in r-cran-janeaustenr.  The package need not be installed (it would
bring R along); unpack it here:

    apt-get download r-cran-janeaustenr && dpkg-deb -x r-cran-janeaustenr_*.deb austen
    python3 train.py --out model

Any other text can be given with --text FILE...  The second command writes
into model/ what the Hugging Face layout expects:

    tokenizer.model         SentencePiece BPE with byte fallback, 2048 pieces
    tokenizer_config.json
    config.json             LlamaForCausalLM
    generation_config.json
    pytorch_model.bin       torch.save() of the f16 state_dict
    train_log.json          the settings and losses of this run

Needs torch, numpy and sentencepiece.  With --check it also needs transformers
(and its optional dependency protobuf): it loads the folder back with
AutoModelForCausalLM and compares tokens, logits and a greedy continuation.
"""

import argparse
import io
import json
import math
import os
import random
import re
import struct
import time
import zlib

import numpy as np
import sentencepiece as spm
import torch
import torch.nn as nn
import torch.nn.functional as F

AUSTEN_RDB = "austen/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
UNK, BOS, EOS = 0, 1, 2

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": None,
    "torch_dtype": "float16",
    "use_cache": True,
}


# --------------------------------------------------------------------- text

def read_rdb(path):
    """The character vectors of an R lazy-load database, one text per vector.

    The database is a run of records: a big-endian length, then that many
    bytes (once inflated) of R's XDR serialisation of one object.
    """
    data, texts = open(path, "rb").read(), []
    while data:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(data[4:])
        data = inflate.unused_data
        if raw[:2] != b"X\n" or raw[2:6] != struct.pack(">i", 3):
            raise SystemExit(f"{path}: not a version 3 XDR serialisation")
        pos = 18 + struct.unpack_from(">i", raw, 14)[0]     # skip the encoding's name
        kind, count = struct.unpack_from(">ii", raw, pos)
        if kind & 255 != 16:                                # STRSXP
            continue
        pos += 8
        lines = []
        for _ in range(count):
            size = max(struct.unpack_from(">i", raw, pos + 4)[0], 0)
            lines.append(raw[pos + 8:pos + 8 + size].decode("utf-8"))
            pos += 8 + size
        texts.append("\n".join(lines))
    return texts


def paragraphs(text):
    """Unwrapped paragraphs, without the marks of emphasis and the rules."""
    text = text.replace("_", "")
    for block in re.split(r"\n\s*\n", text):
        line = " ".join(block.split())
        if re.search(r"[A-Za-z]", line) and not line.startswith("["):
            yield line


def chapters(text):
    """Lists of paragraphs; a heading opens a new list, front matter is dropped."""
    found, current = [], None
    for line in paragraphs(text):
        if re.fullmatch(r"(VOLUME|Volume)\b.{0,20}|FINIS|Finis|THE END|\(End of .*\)", line):
            continue
        if re.fullmatch(r"(CHAPTER|Chapter) [0-9IVXLC]+\.?", line):
            current = []
            found.append(current)
        if current is not None:
            current.append(line)
    return found or [list(paragraphs(text))]


SENTENCE_END = re.compile(
    r'(?:(?<=[.!?])|(?<=[.!?]"))(?<!Mr\.)(?<!Mrs\.)(?<!Dr\.)(?<!St\.) (?=["A-Z])')


# ---------------------------------------------------------------- tokenizer

def train_tokenizer(lines, vocab_size):
    """A SentencePiece model with LLaMA's settings."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model,
        model_type="bpe", vocab_size=vocab_size, byte_fallback=True,
        unk_id=UNK, bos_id=BOS, eos_id=EOS, pad_id=-1,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=True, split_digits=True, allow_whitespace_only_pieces=True,
        character_coverage=0.99995, max_sentence_length=1 << 16,
        num_threads=1, minloglevel=1)
    return model.getvalue()


class Stream:
    """A run of tokens that can be entered at the start of any sentence.

    A sequence is <s>, then text from the start of some sentence on.  At the
    start of a sequence the first word has the tokenizer's dummy prefix, in
    the middle of a text, after a line break, it does not: `entries` has for
    each sentence the tokens of its first word at the start of a sequence and
    the position in the stream that follows them.
    """

    def __init__(self, sp, chapter_list):
        newline = sp.encode("\n")[1:]
        tokens, self.starts, self.entries = [], [], []
        for chapter in chapter_list:
            for i, line in enumerate(chapter):
                if i:
                    tokens += newline
                for j, sentence in enumerate(SENTENCE_END.split(line)):
                    self.starts.append(len(tokens))
                    if i and not j:
                        # Only the first word differs: pieces never span words.
                        word = sentence.split(" ")[0]
                        body = sp.encode("\n" + word)[1 + len(newline):]
                        self.entries.append((sp.encode(word), len(tokens) + len(body)))
                        tokens += sp.encode("\n" + sentence)[1 + len(newline):]
                    else:
                        self.entries.append(([], len(tokens)))
                        tokens += sp.encode(sentence)
            tokens += [EOS, BOS]
        self.tokens = np.array(tokens[:-1], dtype=np.int64)

    def __len__(self):
        return len(self.tokens)

    def sequence(self, offset, length):
        """`length` tokens from the first sentence at or after `offset`, or None."""
        i = np.searchsorted(self.starts, offset)
        if i == len(self.starts):
            return None
        head, pos = self.entries[i]
        head = [BOS] + head
        tail = self.tokens[pos:pos + length - len(head)]
        if len(head) + len(tail) < length:
            return None
        return np.concatenate([np.array(head, dtype=np.int64), tail])


def batches(stream, length, batch, rng):
    """Endless batches; an epoch covers the stream once, from a random phase."""
    pending = []
    while True:
        offsets = list(range(rng.randrange(length), len(stream), length))
        rng.shuffle(offsets)
        for offset in offsets:
            sequence = stream.sequence(offset, length + 1)
            if sequence is not None:
                pending.append(sequence)
            if len(pending) == batch:
                yield torch.from_numpy(np.stack(pending))
                pending = []


# -------------------------------------------------------------------- model
# Modules are named so that state_dict() has the names of LlamaForCausalLM.

class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads, self.dim = (
            c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"])
        hidden = c["hidden_size"]
        self.q_proj = nn.Linear(hidden, self.heads * self.dim, bias=False)
        self.k_proj = nn.Linear(hidden, self.kv_heads * self.dim, bias=False)
        self.v_proj = nn.Linear(hidden, self.kv_heads * self.dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.dim, hidden, bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, self.heads, self.dim).transpose(1, 2)
        k = self.k_proj(x).view(b, t, self.kv_heads, self.dim).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.kv_heads, self.dim).transpose(1, 2)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        groups = self.heads // self.kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        hidden, inner = c["hidden_size"], c["intermediate_size"]
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c, dropout):
        super().__init__()
        self.self_attn = Attention(c)
        self.mlp = MLP(c)
        self.input_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.post_attention_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.dropout = dropout

    def forward(self, x, cos, sin):
        drop = lambda y: F.dropout(y, self.dropout, self.training)
        x = x + drop(self.self_attn(self.input_layernorm(x), cos, sin))
        return x + drop(self.mlp(self.post_attention_layernorm(x)))


class Decoder(nn.Module):
    def __init__(self, c, dropout):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(
            Layer(c, dropout) for _ in range(c["num_hidden_layers"]))
        self.norm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.dropout = dropout
        half = torch.arange(0, c["head_dim"], 2, dtype=torch.float32) / c["head_dim"]
        angle = torch.outer(torch.arange(c["max_position_embeddings"], dtype=torch.float32),
                            c["rope_theta"] ** -half)
        angle = torch.cat([angle, angle], dim=-1)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids):
        x = F.dropout(self.embed_tokens(ids), self.dropout, self.training)
        cos, sin = self.cos[:ids.shape[1]], self.sin[:ids.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)


class Llama(nn.Module):
    def __init__(self, c, dropout=0.0):
        super().__init__()
        self.model = Decoder(c, dropout)
        self.lm_head = nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)
        std = c["initializer_range"]
        for name, p in self.named_parameters():
            if p.dim() == 2:
                out = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, 0.0, std / math.sqrt(2 * c["num_hidden_layers"]) if out else std)

    def forward(self, ids):
        return self.lm_head(self.model(ids))


# ----------------------------------------------------------------- training

def loss_of(model, batch):
    logits = model(batch[:, :-1])
    return F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def validate(model, data, bf16):
    model.eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        total = sum(loss_of(model, batch).item() * len(batch) for batch in data)
    model.train()
    return total / sum(len(batch) for batch in data)


@torch.no_grad()
def generate(model, sp, prompt, count, temperature=0.0, seed=0):
    """`count` tokens after the prompt, or fewer at an end of text."""
    was_training = model.training
    model.eval()
    rng = torch.Generator().manual_seed(seed)
    ids = [BOS] + sp.encode(prompt)
    for _ in range(count):
        logits = model(torch.tensor([ids]))[0, -1].float()
        if temperature > 0:
            ids.append(int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=rng)))
        else:
            ids.append(int(logits.argmax()))
        if ids[-1] == EOS:
            break
    model.train(was_training)
    return sp.decode(ids)


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def export(model, tokenizer, out, log):
    os.makedirs(out, exist_ok=True)
    half = Llama(CONFIG).half()
    half.load_state_dict(model.state_dict())
    # torch.save() names the archive's folder after the file: hence a folder, not a suffix.
    part = os.path.join(out, "part")
    os.makedirs(part, exist_ok=True)
    torch.save(half.state_dict(), os.path.join(part, "pytorch_model.bin"))
    os.replace(os.path.join(part, "pytorch_model.bin"), os.path.join(out, "pytorch_model.bin"))
    os.rmdir(part)
    with open(os.path.join(out, "tokenizer.model"), "wb") as f:
        f.write(tokenizer)
    write_json(os.path.join(out, "config.json"), CONFIG)
    write_json(os.path.join(out, "generation_config.json"), {
        "bos_token_id": BOS, "eos_token_id": EOS, "do_sample": False})
    write_json(os.path.join(out, "tokenizer_config.json"), {
        "tokenizer_class": "LlamaTokenizer", "legacy": True,
        "add_bos_token": True, "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONFIG["max_position_embeddings"],
        "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": None})
    write_json(os.path.join(out, "train_log.json"), log)


def train(args):
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)

    if args.text:
        texts = [open(path, encoding="utf-8").read() for path in args.text]
    else:
        texts = read_rdb(args.rdb)
    train_chapters, val_chapters = [], []
    for text in texts:
        found = chapters(text)
        # Every 40th chapter, starting in the middle of things, is held out.
        val_chapters += found[19::40]
        train_chapters += [c for i, c in enumerate(found) if i % 40 != 19]

    if args.init:
        tokenizer = open(os.path.join(args.init, "tokenizer.model"), "rb").read()
    else:
        tokenizer = train_tokenizer(
            [line for c in train_chapters for line in c], CONFIG["vocab_size"])
    sp = spm.SentencePieceProcessor(model_proto=tokenizer)
    stream, val_stream = Stream(sp, train_chapters), Stream(sp, val_chapters)
    # The token stream is exactly what the tokenizer makes of the whole text.
    assert stream.tokens[:stream.tokens.tolist().index(EOS)].tolist() == \
        sp.encode("\n".join(train_chapters[0]))
    longest = CONFIG["max_position_embeddings"]
    val = [s for s in (val_stream.sequence(o, longest + 1)
                       for o in range(0, len(val_stream), longest)) if s is not None]
    val = [torch.from_numpy(np.stack(val[i:i + 8])) for i in range(0, len(val), 8)]
    chars = sum(len(line) + 1 for c in train_chapters for line in c)

    model = Llama(CONFIG, args.dropout)
    if args.init:
        model.load_state_dict({k: v.float() for k, v in torch.load(
            os.path.join(args.init, "pytorch_model.bin"), weights_only=True).items()})
    params = sum(p.numel() for p in model.parameters())
    print(f"{len(train_chapters)} chapters, {chars} characters, {len(stream)} tokens to train on; "
          f"{len(val_chapters)} chapters, {len(val_stream)} tokens held out; {params} parameters",
          flush=True)

    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": args.weight_decay},
         {"params": vectors, "weight_decay": 0.0}],
        lr=args.lr, betas=(0.9, 0.98), fused=True)
    step_model = torch.compile(model, dynamic=False) if args.compile else model
    log = {"settings": {k: v for k, v in vars(args).items() if k not in ("out", "rdb", "text", "init", "check")},
           "parameters": params, "train_tokens": len(stream), "val_tokens": len(val_stream),
           "losses": []}
    rng = random.Random(args.seed)
    short_data = batches(stream, longest // 2, 2 * args.batch, rng)
    long_data = batches(stream, longest, args.batch, rng)
    begin = last_export = time.time()
    running, step = None, 0
    while True:
        elapsed = time.time() - begin
        # The schedule ends with the steps or with the minutes, whichever is first.
        done = max(step / args.steps, elapsed / (60 * args.minutes) if args.minutes else 0.0)
        if step % args.every == 0 or done >= 1:
            value = validate(model, val, args.bf16)
            train_loss = running if running is not None else float("nan")
            print(f"step {step}  {elapsed:.0f} s  {step * args.batch * longest / max(elapsed, 1e-9):.0f} tokens/s  "
                  f"train {train_loss:.4f}  val {value:.4f}", flush=True)
            log["losses"].append({"step": step, "seconds": round(elapsed), "val": round(value, 4),
                                  "train": round(train_loss, 4) if running is not None else None})
        if done >= 1 or time.time() - last_export > 60 * args.export_minutes:
            print("  " + generate(model, sp, args.prompt, 60).replace("\n", "\n  "), flush=True)
            export(model, tokenizer, args.out, log)
            last_export = time.time()
        if done >= 1:
            break
        warm = min(1.0, (step + 1) / args.warmup)
        rate = args.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = next(long_data if done >= args.long_from else short_data)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            loss = loss_of(step_model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        step += 1


# -------------------------------------------------------------------- check

def check(args):
    """Load the folder back, alone and with transformers, and compare."""
    torch.set_num_threads(args.threads)
    sp = spm.SentencePieceProcessor(model_file=os.path.join(args.out, "tokenizer.model"))
    model = Llama(CONFIG)
    state = torch.load(os.path.join(args.out, "pytorch_model.bin"), weights_only=True)
    model.load_state_dict(state)
    model.eval()
    for prompt in (args.prompt, "She had", "Mr. Darcy", "\"My dear"):
        print("greedy       ", repr(generate(model, sp, prompt, 80)))
        print("temperature .8", repr(generate(model, sp, prompt, 80, 0.8, args.seed)))

    from transformers import AutoModelForCausalLM, AutoTokenizer
    reference = AutoModelForCausalLM.from_pretrained(args.out, dtype=torch.float32)
    reference.eval()
    names = {k: v.half() for k, v in reference.state_dict().items()}
    assert names.keys() == state.keys()
    assert all(torch.equal(names[k], state[k]) for k in state)
    ids = [BOS] + sp.encode("It was a truth universally acknowledged,\nthat Emma -- in 1815 -- had £5.")
    with torch.no_grad():
        ours = model(torch.tensor([ids]))
        theirs = reference(torch.tensor([ids])).logits
    print("largest difference of logits:", (ours - theirs).abs().max().item())
    assert torch.allclose(ours, theirs, atol=1e-3)
    for prompt in (args.prompt, "She had", "Mr. Darcy"):
        ids = torch.tensor([[BOS] + sp.encode(prompt)])
        text = sp.decode(reference.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=80, do_sample=False)[0].tolist())
        assert text == generate(model, sp, prompt, 80), (text, prompt)
    tokenizer = AutoTokenizer.from_pretrained(args.out)
    for prompt in (args.prompt, "Mr. Darcy, in 1815", "naïve £5", "a  b"):
        got = tokenizer(prompt)["input_ids"]
        print("transformers' tokenizer", "agrees" if got == [BOS] + sp.encode(prompt) else "DIFFERS",
              "on", repr(prompt))
    print("transformers loads the folder and generates the same text")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default="model", help="the folder to write")
    p.add_argument("--rdb", default=AUSTEN_RDB, help="janeaustenr's data file")
    p.add_argument("--text", nargs="+", help="plain text files to train on instead")
    p.add_argument("--init", help="go on from the weights and the tokenizer in this folder")
    p.add_argument("--seed", type=int, default=1813)
    p.add_argument("--steps", type=int, default=5000)
    p.add_argument("--minutes", type=float, default=0, help="end the schedule after so long, if the steps take longer")
    p.add_argument("--batch", type=int, default=8, help="full-length sequences per step")
    p.add_argument("--long-from", type=float, default=0.75,
                   help="train on twice as many sequences of half the length for this part of the schedule")
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--warmup", type=int, default=100)
    p.add_argument("--weight-decay", type=float, default=0.1)
    p.add_argument("--dropout", type=float, default=0.1)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True, help="bf16 autocast")
    p.add_argument("--compile", action="store_true", help="torch.compile the training step (needs a C++ compiler)")
    p.add_argument("--every", type=int, default=250, help="steps between validations")
    p.add_argument("--export-minutes", type=float, default=5, help="minutes between exports")
    p.add_argument("--prompt", default="It was a")
    p.add_argument("--check", action="store_true", help="do not train: check the folder --out")
    args = p.parse_args()
    if args.check:
        check(args)
    else:
        train(args)


if __name__ == "__main__":
    main()
