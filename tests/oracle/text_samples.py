"""Strings that tokenizers get wrong: scripts, white space, digits, emoji, marks, long words. Seeded."""
import random
import unicodedata

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and nobody asked why.",
    "It's 1984 again; they'd've said 'we'll see' -- I'm sure you're RIGHT, she'S not. Don'T!",
    "def f(x):\n    return {k: v for k, v in x.items() if v >= 0x7fff_ffff}\n\n\nprint(f({'a': 1}))\n",
    "Ein Käfer läuft über die Straße; früher hieß er Gregor, später ganz anders.",
    "L'été, à Noël, où l'on mangeait des œufs au cœur de la forêt.",
    "Ночь, улица, фонарь, аптека, бессмысленный и тусклый свет.",
    "Τὸ γὰρ αὐτὸ νοεῖν ἐστίν τε καὶ εἶναι. ΌΛΑ ΚΑΛΆ;",
    "古池や蛙飛び込む水の音。カタカナとﾊﾝｶｸ、そして漢字。",
    "天地玄黃,宇宙洪荒。日月盈昃,辰宿列張。",
    "모든 국민은 법 앞에 평등하다. 각난다",
    "في البدء كان الكلمة، والكَلِمَةُ كانت ١٢٣٤٥.",
    "בְּרֵאשִׁית בָּרָא אֱלֹהִים אֵת הַשָּׁמַיִם",
    "सत्यमेव जयते नानृतम् । ०१२३४५ क्षत्रिय",
    "ทุกคนเกิดมาเป็นอิสระ ตัวเลข ๑๒๓",
    "Việt Nam: tiếng Việt có dấu. Tie\u0302\u0301ng Vie\u0323\u0302t!",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 👍🏽 thumb, 🇩🇪🇫🇷 flags, ❤️ heart, 1️⃣ keycap, 🧑🏿‍🚀",
    "x² + y³ = ½ ≠ ∞; ﬁnd ﬂuﬀy Ⅷ ①②③ ㎏ ℡ ™ Å Å ﷺ",
    "a\u0301\u0323 e\u0301 o\u0308\u0304 \u0301alone q\u0307\u0323 q\u0323\u0307 \u1e9b\u0323 \u0344",
    "tabs\tand\r\nCRLF\r\n\r\nand \x0b\x0c\x85\u2028\u2029 end\n \n  \n   x",
    "      leading   and    trailing     \t\t  ",
    "nbsp\u00a0thin\u2009ideographic\u3000zero\u200bwidth\u180e\ufeffbom\u2060",
    "1234567890 3.14159265358979 1,000,000 2024-11-05T12:34:56Z 0x1F ١٢ Ⅻ ¾ 五",
    "camelCaseHTTPServer snake_case __init__ kebab-case path/to/file.txt C:\\dir\\file",
    "!!!???... --- *** ((())) [[[]]] {{{}}} <<<>>> ''' \"\"\" ``` ~~~ @@@ ### $$$ %%% ^^^ &&&",
    "a\x00b \x01\x02\x1f\x7f\x80\x9f",
    "ſ K Å ß ẞ İ ı Ǆ ǅ ǆ 'ſ 'S 'ſtop",
    "supercalifragilisticexpialidocious" * 3,
    "A" * 70 + "ä" * 33 + "😀" * 9,
    "▁literal ▁▁ symbols ▁ here▁",
    "Ġfake Ċstand-ins âĢĻ",
    "<s>not special</s> <unk> <|endoftext|> <|im_start|>user\nhi<|im_end|> <0x0A> <pad>",
]
FILLERS = ["", " ", "  ", "\n", "\r\n", "\t", ". ", ", ", "'s ", " 1", "\n\n", "   ", "\u00a0", "😀", "-"]


def _assigned():
    """Characters that have been what they are since Unicode 3.2, so that no library's age matters."""
    old = unicodedata.ucd_3_2_0
    return [chr(c) for c in range(0x20, 0x10000)
            if not 0xD800 <= c < 0xE000 and old.category(chr(c)) not in ("Cn", "Co")
            and old.category(chr(c)) == unicodedata.category(chr(c))]


def samples(count, seed=1, extra=()):
    """The sentences themselves, then `count` random mixtures; `extra` strings are mixed in."""
    rng = random.Random(seed)
    characters = _assigned()
    out = ["", " ", "\n", "\x00", *SENTENCES, *extra]
    pool = SENTENCES + list(extra) * 3
    while len(out) < count:
        parts = []
        for _ in range(rng.randint(1, 6)):
            kind = rng.random()
            if kind < 0.45:
                words = rng.choice(pool)
                start = rng.randrange(len(words) + 1)
                parts.append(words[start:start + rng.randint(1, 30)])
            elif kind < 0.55:
                parts.append("".join(rng.choice(characters) for _ in range(rng.randint(1, 8))))
            elif kind < 0.65:
                parts.append(rng.choice(" \n\t\r\u3000") * rng.randint(1, 40))
            elif kind < 0.75:
                parts.append(str(rng.randrange(10 ** rng.randint(1, 15))))
            elif kind < 0.85 and extra:
                parts.append(rng.choice(extra))
            else:
                parts.append(rng.choice(FILLERS))
        out.append("".join(parts))
    return out


def corpus(seed=2, lines=3000):
    """Text to train small tokenizers on."""
    rng = random.Random(seed)
    out = []
    for _ in range(lines):
        words = rng.choice(SENTENCES[:24]).replace("\x00", "").split(" ")
        start = rng.randrange(len(words))
        out.append(" ".join(words[start:start + 12]) + " " + str(rng.randrange(10000)))
    return out
