"""The C++ tokenizer at the end of a pipe (tests/tools/tokenize.cc)."""
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[2]


class TokenizeTool:
    def __init__(self, *args):
        binary = pathlib.Path(os.environ.get("QUIRE", ROOT / "bazel-bin" / "quire")).parent / "tests/tools/tokenize"
        self.process = subprocess.Popen([binary, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"tokenize died with {self.process.wait()} on {request!r:.200}"
        return json.loads(line)

    def encode(self, text, special=False, bos=False):
        answer = self.ask(text=text, special=special, bos=bos)
        assert "ids" in answer, answer
        return answer["ids"]

    def decode(self, ids, special=False, continues=False):
        answer = self.ask(ids=list(ids), special=special, continues=continues)
        assert "".join(answer["stream"]) == answer["text"], (ids, answer)
        return answer["text"]

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(60) == 0

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close() if kind is None else self.process.kill()
