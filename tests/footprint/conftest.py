import pathlib

import pytest

import shapes

EMBEDDED = pathlib.Path(__file__).parents[1] / "testdata" / "embedded"


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Folder of each shape, made when first asked for."""
    made = {"embedded": EMBEDDED}

    def get(shape):
        if shape not in made:
            made[shape] = shapes.write_checkpoint(tmp_path_factory.mktemp("checkpoints") / shape, shape, share_layers=shape == "7b")
        return made[shape]

    return get


@pytest.fixture(scope="session")
def models(tmp_path_factory, quire, checkpoints):
    """Path of the q4 model of each shape, made when first asked for."""
    made = {}

    def get(shape):
        if shape not in made:
            made[shape] = tmp_path_factory.mktemp("models") / f"{shape}.quire"
            quire("convert", checkpoints(shape), made[shape], *([] if shape == "embedded" else ["--tokenizer", "none"]))
        return made[shape]

    return get
