"""Hard strings for tokenizer tests, the same for the same seed."""
import random

WORDS = """the quick brown fox jumps over lazy dog hello world don't can't I'm we'll they've HTTPServer's foo_bar/baz
naïve café résumé Straße ǅ ŉ İstanbul ıı ﬁﬂ ﬃ Å Å K Ω ½ ² ① Ⅷ ㊿ ㍿ ﷺ ẞ ſ 'ſ 'S 'LL 'Ve
Привет мир как дела не Ёлка й Γειά σου Κόσμε Σίσυφος ΌΣΟΣ שלום עולם שָׁלוֹם مرحبا بالعالم العَرَبِيَّة ۱۲۳ سلام
नमस्ते दुनिया क्षत्रिय हिन्दी বাংলা ভাষা தமிழ் తెలుగు ಕನ್ನಡ മലയാളം ไทยสวัสดีชาวโลก ລາວ ភាសាខ្មែរ မြန်မာ བོད་ཡིག
你好世界 中文字符 日本語テスト ひらがな カタカナ ｶﾞｷﾞ ﾊﾟ 한국어 안녕하세요 각 각 ꥠ 粵語 𠮷野家 㐂 鿿 﨑 龦
ქართული Հայերեն አማርኛ ᏣᎳᎩ ᠮᠣᠩᠭᠣᠯ ᠠ᠎ᠡ ⵜⵉⴼⵉⵏⴰⵖ ꓡꓲ ߒߞߏ 𐐀𐐨 𝕳𝖊𝖑𝖑𝖔 𝟘𝟙𝟚 ａｂｃ１２３ 𞤀𞤣 𒀀 𓀀 🄰 ⓐ
def return if(x==1){y+=2;} std::vector<int> #include <stdio.h> SELECT * FROM `t` WHERE a<>b; $VAR ${x} a->b &&amp;
0xDEADBEEF
1 12 123 1234 12345 3.14159 1,000,000 -42 1e-10 ١٢٣ १२३ ５６７ ²³ ¼ 100% $5.00 €20 2024-01-31T12:00:00Z +1(555)123-4567
👍 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ❤️ ☃ ✂︎ 1️⃣ 🧑🏿‍🚀 🫠 🫨 🪿 🩷 😶‍🌫️ ♂️ e.g. i.e. U.S.A. http://example.com/a?b=c&d=e#f user@host.org
... !!! ??? --- *** ___ === ~~~ «quoted» “smart” ‘single’ „low“ —dash– … ‰ § ¶ † ‡ • · ¿¡ ‽ 「」 、。 ！？ ／ ＠ ٪ ؟
،""".split()

SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", " \n", "\n ", "\t\t", "\v", "\f", "\x85", "\u00a0",
          "\u1680",
          "\u2000", "\u2003", "\u2009", "\u200a", "\u200b", "\u200d", "\u2028", "\u2029", "\u202f", "\u205f", "\u2060",
          "\u3000", "\ufeff", "\u180e", "\x1c", "\x1f", "\x00", "\x7f", "\xad", "", "", " ", " ", " "]

MARKS = ("\u0300\u0301\u0308\u0323\u0327\u0345\u0334\u20dd\u094d\u05b0\u064b"
         "\u3099\u0e38\u1dc4\ufe0f\u200d\u0338\u1df6\u08d3")

SPECIALS = ["<s>", "</s>", "<unk>", "<pad>", "<mask>", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "<|endoftext|>",
            "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|end|>", "<think>", "</think>", "<tool_call>",
            "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<0x41>", "<0xE4>", "▁", "Ġ", "##", "<|", "|>",
            "<|begin_of_text|>", "<|eot_id|>", "<|im_start", "<<s>>", "<empty_output>", "<repo_name>", "ADDED", "added",
            "<extra>", "«tok»"]

RANGES = [(0x20, 0x7f), (0xa0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x800), (0x900, 0xe00), (0xe00, 0x1200),
          (0x1200, 0x1d00), (0x1d00, 0x2000), (0x2000, 0x2c00), (0x2c00, 0x3100), (0x3100, 0xa000), (0xa000, 0xac00),
          (0xac00, 0xd7a4), (0xf900, 0x10000), (0x10000, 0x12000), (0x12000, 0x17000), (0x1b000, 0x1d800),
          (0x1d000, 0x20000), (0x20000, 0x32400), (0xe0000, 0xe0200), (0xf0000, 0xf0100)]

FIXED = ["", " ", "  ", "\n", "a", "é", "e\u0301", "Hello world", " Hello world",
         "Hello  world, it's 12345!\n\n  def f(x):\t# DON'T\r\n",
         "a   b \n c", "HTTPServer's foo_bar/baz", "नमस्ते", "abc" * 30, "<|user|>\nHi<|end|>\n<|assistant|>\n",
         "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<s>", "<s> ", " <s>", "a <s> b", "x</s>y",
         "<mask> it",
         "it  <mask>  is", "ADDED", "xADDEDy", "x ADDED y", " ADDED.", "▁a ▁", "▁▁", " ▁", "\u2581\u2581x", "Ġa", "##a",
         "'s", "'S", "'ſ", "I'LL", "it's's", "''s", "\u1e9b\u0323", "\u0344\u0345", "\u1100\u1161\u11a8",
         "\u11935\u11930",
         "q\u0307\u0323", "a\u1df6\u0301", "\u09c7\u09be", "\U00011935\U00011930", "\u212b", "\ufb01", "\u01c5",
         "\u0130I",
         "\u03a3\u03a3", "中 文", "a中b", "\ufffd", "\x00\x01", "a\u200bb", "\u00a0a\u00a0", "word\u00adword", "a" * 300,
         " " * 300,
         "\n" * 100, "中" * 150, "👍" * 80, "\u0301" * 120, "0" * 100, "!" * 100, "aA" * 120, "ab " * 80, " a" * 100,
         "'" * 60,
         "\u0345\u0301\u0334" * 60, "x" * 101, "x" * 100, "é" * 101, "🧑🏿‍🚀" * 30]


class Strings:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def mixture(self):
        r = self.random
        parts = []
        for _ in range(r.randint(1, 14)):
            kind = r.random()
            if kind < 0.55:
                parts.append(r.choice(WORDS))
            elif kind < 0.70:
                parts.append(r.choice(SPECIALS))
            elif kind < 0.80:
                low, high = r.choice(RANGES)
                parts.append("".join(chr(r.randrange(low, high)) for _ in range(r.randint(1, 8))))
            elif kind < 0.86:
                parts.append(r.choice("aeoqΩक가か") + "".join(r.choice(MARKS) for _ in range(r.randint(1, 4))))
            elif kind < 0.90:
                parts.append(r.choice(WORDS).upper())
            elif kind < 0.94:
                parts.append(r.choice("aA1 \n.é中") * r.randint(2, 40))
            else:
                parts.append("".join(r.choice(WORDS)[:2] for _ in range(4)))
            if r.random() < 0.75:
                parts.append(r.choice(SPACES))
        return "".join(parts).encode("utf-8", "surrogatepass")

    def broken(self):
        """A mixture with bytes cut out, changed or put in."""
        r = self.random
        data = bytearray(self.mixture())
        for _ in range(r.randint(1, 6)):
            at = r.randint(0, len(data))
            kind = r.random()
            if kind < 0.4:
                data[at:at] = r.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xe4\xbd", b"\x80",
                                        b"\xf4\x90\x80\x80",
                                        b"\xe0\x80\xaf", b"\xf8\x88\x80\x80\x80", b"\xc3", b"\xfe"])
            elif kind < 0.7 and data:
                del data[min(at, len(data) - 1)]
            elif data:
                data[min(at, len(data) - 1)] = r.randrange(256)
        return bytes(data)

    def make(self, count):
        """`count` byte strings (more when there are more fixed ones): fixed, mixtures, broken ones, random bytes."""
        out = [text.encode() for text in FIXED]
        while len(out) < count:
            kind = self.random.random()
            if kind < 0.78:
                out.append(self.mixture())
            elif kind < 0.93:
                out.append(self.broken())
            else:
                out.append(bytes(self.random.randrange(256) for _ in range(self.random.randint(1, 60))))
        return out
