import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]


class Quire:
    """Runs the binary under test: $QUIRE, or bazel-bin/quire."""

    def __init__(self):
        self.path = os.environ.get("QUIRE", str(ROOT / "bazel-bin" / "quire"))

    def run(self, *args, input=None, env=None, **kwargs):
        """The finished process, whatever its exit code."""
        return subprocess.run([self.path, *map(str, args)], input=input, capture_output=True, timeout=300,
                              env={**os.environ, **(env or {})}, **kwargs)

    def __call__(self, *args, input=None, env=None):
        """stdout of a run that must succeed."""
        done = self.run(*args, input=input, env=env)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode(errors="replace")

    def json(self, *args, **kwargs):
        return json.loads(self(*args, "--json", **kwargs))


@pytest.fixture(scope="session")
def quire():
    return Quire()
