"""`quire inspect --json --checksums` against torch and safetensors, on files that they wrote."""

import collections
import io
import json
import os
import random
import struct
import subprocess
import tarfile
import pathlib
import pickle
import types
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint
import xxhash

DTYPES = {
    torch.float64: "float64", torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16",
    torch.int64: "int64", torch.int32: "int32", torch.int16: "int16", torch.int8: "int8", torch.uint8: "uint8",
    torch.bool: "bool", torch.uint16: "uint16", torch.uint32: "uint32", torch.uint64: "uint64",
    torch.float8_e4m3fn: "float8_e4m3fn", torch.float8_e5m2: "float8_e5m2",
    torch.complex64: "complex64", torch.complex128: "complex128",
}  # fmt: skip


def xxh3(tensor):
    """XXH3-64 of the elements in logical order."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return xxhash.xxh3_64_hexdigest(data)


def flatten(value, prefix=""):
    """(dotted name, tensor) of everything below value, in order."""
    if isinstance(value, torch.Tensor):
        yield prefix, value
    elif isinstance(value, types.SimpleNamespace):
        yield from flatten(vars(value), prefix)
    elif isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))


def check(quire, path, value, container):
    """What quire lists is what torch holds: names, shapes, dtypes, values."""
    listed = quire.json("inspect", path, "--checksums")
    assert listed["container"] == container
    expected = [
        {"name": name, "shape": list(t.shape), "dtype": DTYPES[t.dtype], "xxh3": xxh3(t)} for name, t in flatten(value)
    ]
    if container == "safetensors":  # listed in the order of the file
        expected.sort(key=lambda row: row["name"])
        listed["tensors"].sort(key=lambda row: row["name"])
    assert listed["tensors"] == expected
    return listed


def random_tensor(dtype, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    elements = int(np.prod(shape))
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    size = torch.empty((), dtype=dtype).element_size()
    data = torch.randint(0, 256, (elements * size,), generator=generator, dtype=torch.uint8)
    return data.view(dtype).reshape(shape) if elements else torch.empty(shape, dtype=dtype)


def all_dtypes():
    return {f"t.{name}": random_tensor(dtype, 3, 5, seed=i) for i, (dtype, name) in enumerate(DTYPES.items())}


def views():
    base = torch.arange(4 * 6 * 10, dtype=torch.float32).reshape(4, 6, 10)
    wide = random_tensor(torch.bfloat16, 300, 700)
    return {
        "base": base,
        "transposed": base.transpose(0, 2),
        "permuted": base.permute(1, 2, 0),
        "row": base[2],
        "column": base[:, :, 3],
        "stepped": base[::2, 1::2, ::3],
        "overlapping": base.reshape(-1).unfold(0, 7, 3),
        "expanded": torch.tensor([5.0]).expand(9, 4),
        "offset scalar": base[1, 2, 3],
        "wide.t": wide.t(),
        "wide.middle": wide[100:200, 50:60],
        "wide.middle.t": wide[100:200, 50:650:3].t(),
        "channels_last": random_tensor(torch.float16, 2, 3, 40, 50).to(memory_format=torch.channels_last),
        "flipped": wide.t()[::7],
    }


def shapes():
    return {
        "scalar": torch.tensor(3.5),
        "one": torch.ones(1),
        "ones": torch.ones(1, 1, 1, 1, 1, 1, 1),
        "empty": torch.empty(0),
        "empty rows": torch.empty(0, 7),
        "empty columns": torch.empty(7, 0, dtype=torch.int64),
        "empty view": torch.ones(4)[4:],
        "ten dimensions": torch.arange(2**10).reshape([2] * 10).transpose(0, 9),
    }


def tied():
    weight = random_tensor(torch.float32, 8, 4)
    return {"embed.weight": weight, "lm_head.weight": weight, "half": weight[:4], "t": weight.t()}


def module_state():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.Embedding(4, 3), torch.nn.LSTM(3, 2)
    )
    return model.state_dict()


def training():
    """What training loops save."""
    torch.manual_seed(1)
    model = torch.nn.Linear(6, 5)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 6)).sum().backward()
    optimizer.step()
    ema = collections.OrderedDict((k, v.clone()) for k, v in model.state_dict().items())
    return {
        "model": model.state_dict(),
        "ema": ema,
        "parameters": [torch.nn.Parameter(torch.randn(3)), torch.nn.Parameter(torch.arange(4), requires_grad=False)],
        "optimizer": optimizer.state_dict(),
        "step": 7,
        "lr": 3e-4,
        "name": "run \"7\" é",
        "flag": True,
        "nothing": None,
        "milestones": [10, 20],
        "betas": (0.9, 0.999),
        "model_args": {"dim": 64, "n_layers": 5},
        "rng": torch.get_rng_state(),
        "size": torch.Size([3, 4]),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "history": collections.defaultdict(list, {"loss": [1.0, 0.5]}),
        "counts": collections.Counter("aab"),
        "queue": collections.deque([1, 2, 3], maxlen=5),
        "seen": {1, 2},
        "frozen": frozenset([3]),
        "bytes": b"\x00\xff",
        "complex": 1 + 2j,
        "big": 2**80,
        "path": pathlib.PurePosixPath("a/b"),
        "args": types.SimpleNamespace(width=3, deep=types.SimpleNamespace(weight=torch.ones(2))),
        "numpy": {"f8": np.float64(0.25), "f4": np.float32(0.5), "i8": np.int64(-3), "array": np.arange(3)},
    }


CASES = {"dtypes": all_dtypes, "views": views, "shapes": shapes, "tied": tied, "module": module_state,
         "training": training}  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("case", CASES)
def test_zip(quire, tmp_path, case, protocol):
    value = CASES[case]()
    torch.save(value, tmp_path / "x.pt", pickle_protocol=protocol)
    check(quire, tmp_path / "x.pt", value, "torch-zip")


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("case", CASES)
def test_legacy(quire, tmp_path, case, protocol):
    value = CASES[case]()
    torch.save(value, tmp_path / "x.bin", pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    check(quire, tmp_path / "x.bin", value, "torch-legacy")


def test_metadata(quire, tmp_path):
    torch.save(training(), tmp_path / "x.pt")
    metadata = quire.json("inspect", tmp_path / "x.pt")["metadata"]
    expected = {
        "step": 7, "lr": 3e-4, "name": "run \"7\" é", "flag": True, "nothing": None, "milestones": [10, 20],
        "betas": [0.9, 0.999], "model_args.dim": 64, "model_args.n_layers": 5, "size": [3, 4],
        "dtype": "torch.bfloat16", "device": "cpu", "history.loss": [1.0, 0.5], "counts.a": 2, "queue": [1, 2, 3],
        "seen": [1, 2], "path": "a/b", "args.width": 3, "numpy.f8": 0.25, "numpy.f4": 0.5, "numpy.i8": -3,
        "optimizer.param_groups.0.weight_decay": 0.01,
    }  # fmt: skip
    assert {key: metadata.get(key, "absent") for key in expected} == expected


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_empty_bytes_and_arrays(quire, tmp_path, protocol):
    value = {"a": np.zeros(0), "b": b"", "c": bytearray(), "w": torch.ones(2)}
    torch.save(value, tmp_path / "x.pt", pickle_protocol=protocol)
    check(quire, tmp_path / "x.pt", torch.load(tmp_path / "x.pt", weights_only=False), "torch-zip")


@pytest.mark.parametrize("protocol", [2, 4])
def test_keys_that_are_not_strings(quire, tmp_path, protocol):
    keys = [("a", 0), ("a", 1), (), (7,), ((1, True), (None, 0.5)), -3, 2**62, True, False, None, 0.5, -2.0, 1e-7, b"x",
            ("b", b"y"), torch.float32]  # fmt: skip
    value = {"t": {key: torch.full((2,), float(i)) for i, key in enumerate(keys)}}
    torch.save(value, tmp_path / "x.pt", pickle_protocol=protocol)
    check(quire, tmp_path / "x.pt", value, "torch-zip")


@pytest.mark.parametrize("key", [2**70, 1e16, ("it's",), ("\n",), ("é",), float("inf"), frozenset([1]), b"\xff"])
def test_keys_that_have_no_place_in_names(quire, tmp_path, key):
    torch.save({"a": {key: 1}, "w": torch.ones(2)}, tmp_path / "x.pt")
    check(quire, tmp_path / "x.pt", {"w": torch.ones(2)}, "torch-zip")
    torch.save({"a": {key: torch.ones(2)}}, tmp_path / "x.pt")
    done = quire.run("inspect", tmp_path / "x.pt")
    assert done.returncode == 1 and "'a.?'" in done.stderr.decode() and "a kind that is not supported" in done.stderr.decode()


def test_single_tensor_and_list(quire, tmp_path):
    torch.save(torch.arange(5), tmp_path / "tensor.pt")
    check(quire, tmp_path / "tensor.pt", torch.arange(5), "torch-zip")
    torch.save([torch.ones(2), {"a": torch.zeros(3)}], tmp_path / "list.pt")
    check(quire, tmp_path / "list.pt", [torch.ones(2), {"a": torch.zeros(3)}], "torch-zip")


def test_storages_beside_tensors_are_left_out(quire, tmp_path):
    value = {"storage": torch.ones(3).untyped_storage(), "tensor": torch.ones(2)}
    for zipped in (True, False):
        torch.save(value, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
        listed = quire.json("inspect", tmp_path / "x.pt", "--checksums")
        assert [t["name"] for t in listed["tensors"]] == ["tensor"]


def repack(source, target, compression, order=None):
    """The same records, written by Python's zipfile."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        names = old.namelist()
        for name in order(names) if order else names:
            new.writestr(name, old.read(name))


def test_deflated(quire, tmp_path):
    value = {**views(), "large": random_tensor(torch.float32, 700, 900), "zeros": torch.zeros(3_000_000)}
    torch.save(value, tmp_path / "x.pt")
    repack(tmp_path / "x.pt", tmp_path / "y.pt", zipfile.ZIP_DEFLATED)
    assert os.path.getsize(tmp_path / "y.pt") < os.path.getsize(tmp_path / "x.pt")
    check(quire, tmp_path / "y.pt", value, "torch-zip")


def test_archive_with_a_comment(quire, tmp_path):
    torch.save(tied(), tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt", "a") as archive:
        archive.comment = b"not for sale"
    check(quire, tmp_path / "x.pt", torch.load(tmp_path / "x.pt"), "torch-zip")


def test_records_in_another_order(quire, tmp_path):
    torch.save(training(), tmp_path / "x.pt")
    repack(tmp_path / "x.pt", tmp_path / "y.pt", zipfile.ZIP_STORED, order=sorted)
    check(quire, tmp_path / "y.pt", training(), "torch-zip")


def test_many_tensors(quire, tmp_path):
    value = {f"layers.{i}.weight": torch.full((3,), float(i)) for i in range(5000)}
    torch.save(value, tmp_path / "x.pt")
    check(quire, tmp_path / "x.pt", value, "torch-zip")
    torch.save(value, tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    check(quire, tmp_path / "x.bin", value, "torch-legacy")


def test_random_views(quire, tmp_path):
    """Strides, offsets and steps that nobody would think of."""
    rng = random.Random(7)
    value = {}
    for i in range(60):
        rank = rng.randint(1, 5)
        shape = [rng.randint(1, 9) for _ in range(rank)]
        strides = [rng.choice([0, 1, 2, 3, 7, 50, 2000]) for _ in range(rank)]
        offset = rng.randint(0, 30)
        need = offset + sum((n - 1) * s for n, s in zip(shape, strides)) + 1
        base = random_tensor(rng.choice([torch.uint8, torch.float16, torch.float32, torch.complex128]), need, seed=i)
        value[f"view{i}"] = torch.as_strided(base, shape, strides, offset)
    torch.save(value, tmp_path / "x.pt")
    check(quire, tmp_path / "x.pt", value, "torch-zip")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (lambda: torch.eye(3).to_sparse_csr(), "sparse"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8), "quantized"),
        (lambda: torch.ones(3, device="meta"), "meta"),
        (lambda: torch.conj(torch.ones(3, dtype=torch.complex64)), "conj"),
        (lambda: torch._neg_view(torch.ones(3)), "neg"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
        (lambda: torch.ones(3).to(torch.float8_e4m3fnuz), "float8_e4m3fnuz"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_other_tensors_are_refused(quire, tmp_path, make, word, zipped):
    torch.save({"a": {"odd": make()}}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    done = quire.run("inspect", tmp_path / "x.pt")
    assert done.returncode == 1 and done.stdout == b""
    message = done.stderr.decode()
    assert word in message and "a.odd" in message and message.count("\n") == 1


def test_whole_modules_are_refused(quire, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pt")
    done = quire.run("inspect", tmp_path / "x.pt")
    assert done.returncode == 1
    assert "torch.nn.modules.linear Linear" in done.stderr.decode()


def test_torchscript_is_refused(quire, tmp_path):
    with pytest.warns():
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "x.pt")
    done = quire.run("inspect", tmp_path / "x.pt")
    assert done.returncode == 1
    assert "TorchScript" in done.stderr.decode()


def test_tensor_with_attributes(quire, tmp_path):
    tensor, parameter = torch.ones(2), torch.nn.Parameter(torch.zeros(3))
    tensor.note = parameter.note = {"a": 1}
    torch.save({"t": tensor, "p": parameter}, tmp_path / "x.pt")
    check(quire, tmp_path / "x.pt", {"t": tensor, "p": parameter}, "torch-zip")


@pytest.mark.parametrize("aligned", [64, 4096])
def test_without_checksums(quire, tmp_path, aligned):
    """torch can be told not to compute CRC-32s, and to align storages."""
    torch.serialization.set_crc32_options(False)
    torch.utils.serialization.config.save.storage_alignment = aligned
    try:
        torch.save(module_state(), tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(True)
        torch.utils.serialization.config.save.storage_alignment = 64
    check(quire, tmp_path / "x.pt", torch.load(tmp_path / "x.pt"), "torch-zip")


def inspect_usage(quire, path):
    """Its output; seconds of processor time and bytes of peak memory, the less of three runs."""
    runs = []
    for _ in range(3):
        with subprocess.Popen([quire.path, "inspect", path, "--json"], stdout=subprocess.PIPE) as process:
            listed = json.loads(process.stdout.read())
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        runs.append((used.ru_utime + used.ru_stime, used.ru_maxrss << 10))
    return listed, *map(min, zip(*runs))


def test_the_containers_of_13_gigabytes_cost_little(quire, tmp_path):
    """LLaMA-7B's tensors in four shards, as torch.save writes them; storages are left as holes."""
    hidden, ffn, vocab = 4096, 11008, 32000
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "lm_head.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    for i in range(32):
        layer = {"input_layernorm": (hidden,), "post_attention_layernorm": (hidden,), "mlp.gate_proj": (ffn, hidden),
                 "mlp.up_proj": (ffn, hidden), "mlp.down_proj": (hidden, ffn),
                 **{f"self_attn.{p}_proj": (hidden, hidden) for p in "qkvo"}}  # fmt: skip
        shapes.update({f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()})
    large, small = tmp_path / "large", tmp_path / "small"
    for folder in (large, small):
        folder.mkdir()
        names, shards = sorted(shapes), {}
        for shard in range(4):
            mine = names[shard::4] if folder == large else names[shard : shard + 1]
            shards.update({name: f"pytorch_model-{shard}.bin" for name in mine})
            with torch.serialization.skip_data():
                # Memory that is never touched.
                torch.save({n: torch.empty(shapes[n] if folder == large else (1,), dtype=torch.bfloat16) for n in mine},
                           folder / f"pytorch_model-{shard}.bin")  # fmt: skip
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}))
    assert sum(f.stat().st_size for f in large.iterdir()) > 13.4e9
    _, _, base = inspect_usage(quire, small)
    listed, seconds, peak = inspect_usage(quire, large)
    metadata = sum(len(z.read(f"{f.stem}/data.pkl")) for f in large.glob("*.bin") for z in [zipfile.ZipFile(f)])
    assert {t["name"]: tuple(t["shape"]) for t in listed["tensors"]} == shapes
    print(f"\n{1e3 * seconds:.0f} ms, {(peak - base) / 1e6:.1f} MB more than a small one, of {metadata} bytes of metadata")
    assert seconds < 0.1
    assert peak - base < metadata + (4 << 20)


def test_every_name_that_torch_allows(quire, tmp_path):
    """What torch.load reads with weights_only is known here too, be it to be refused for what it is."""
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    names = list(torch._weights_only_unpickler._get_allowed_globals())
    for name in names:
        module, _, attribute = name.rpartition(".")
        with zipfile.ZipFile(tmp_path / "y.pt", "w") as archive:
            for record, data in records.items():
                pickled = f"\x80\x02}}X\x01\0\0\0gc{module}\n{attribute}\ns.".encode("latin1")
                archive.writestr(record, pickled if record == "x/data.pkl" else data)
        message = quire.run("inspect", tmp_path / "y.pt").stderr.decode()
        assert "is not one that" not in message or name == "torch.storage.TypedStorage", name
    assert len(names) > 100


@pytest.mark.filterwarnings("ignore")
def test_other_archives_of_torch_are_named(quire, tmp_path):
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), tmp_path / "x.pt2")
    with torch.package.PackageExporter(tmp_path / "package.pt") as package:
        package.save_pickle("model", "weights.pkl", {"w": torch.ones(2)})
    torch.distributed.checkpoint.save({"w": torch.ones(3), "b": torch.ones(4)}, checkpoint_id=tmp_path / "dcp")
    shard = next((tmp_path / "dcp").glob("*.distcp"))
    cases = {tmp_path / "x.pt2": "torch.export", tmp_path / "package.pt": "torch.package",
             tmp_path / "dcp": "torch.distributed.checkpoint", shard: "another archive"}  # fmt: skip
    for path, words in cases.items():
        done = quire.run("inspect", path)
        assert done.returncode == 1 and words in done.stderr.decode(), (path, done.stderr)


def test_one_flipped_bit_is_found(quire, tmp_path):
    torch.save({"a": torch.ones(100), "b": torch.zeros(100)}, tmp_path / "x.pt")
    data = bytearray((tmp_path / "x.pt").read_bytes())
    data[data.index(struct.pack("<f", 1.0)) + 40] ^= 1
    (tmp_path / "x.pt").write_bytes(data)
    assert torch.load(tmp_path / "x.pt")["a"][10] != 1  # torch does not notice
    done = quire.run("inspect", tmp_path / "x.pt", "--checksums")
    assert done.returncode == 1
    assert "x/data/0" in done.stderr.decode() and "CRC-32" in done.stderr.decode()


@pytest.mark.parametrize("case", ["dtypes", "shapes", "module"])
def test_safetensors(quire, tmp_path, case):
    value = {k: v.contiguous() for k, v in CASES[case]().items()}
    value.pop("t.complex128", None)  # which safetensors does not have
    safetensors.torch.save_file(value, tmp_path / "x.safetensors", metadata={"format": "pt", "é\"": "\n"})
    listed = check(quire, tmp_path / "x.safetensors", value, "safetensors")
    assert listed["metadata"] == {"format": "pt", "é\"": "\n"}


class StorageType:
    """Pickled as the global torch.FloatStorage."""

    def __init__(self, storage):
        self.storage = storage

    def __reduce__(self):
        return f"torch.{self.storage}"


class TarPickler(pickle._Pickler):
    """Names tensors by number, as torch 0.1 did."""

    def __init__(self, file, ids):
        super().__init__(file, protocol=2)
        self.ids = ids

    def persistent_id(self, obj):
        return self.ids.get(id(obj)) if isinstance(obj, torch.Tensor) else None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, StorageType):
            self.write(b"ctorch\n" + obj.storage.encode() + b"\n")
        else:
            super().save(obj, save_persistent_id)


def save_tar(path, value):
    """A tar archive as torch.save wrote before 0.2; torch.load still reads it."""
    names = {torch.float32: "Float", torch.int64: "Long", torch.uint8: "Byte"}
    found = {id(t): t for _, t in flatten(value)}
    ids = {key: 1000 + i for i, key in enumerate(found)}
    storages = {t.untyped_storage().data_ptr(): (2**40 + i, t) for i, t in enumerate(found.values())}

    def dump(out, obj):
        TarPickler(out, {}).dump(obj)

    files = {name: io.BytesIO() for name in ("sys_info", "pickle", "tensors", "storages")}
    dump(files["sys_info"], {"protocol_version": 1000, "little_endian": True})
    TarPickler(files["pickle"], ids).dump(value)
    out = files["storages"]
    dump(out, len(storages))
    for key, tensor in storages.values():
        dump(out, (key, "cpu", StorageType(f"{names[tensor.dtype]}Storage")))
        data = bytes(tensor.untyped_storage())
        out.write(struct.pack("<q", len(data) // tensor.element_size()) + data)
    # A part of the first storage under a key of its own, as 0.1's sliced storages.
    (first, tensor), *_ = storages.values()
    dump(out, [(77, first, 2, 3)])
    out = files["tensors"]
    dump(out, len(found))
    for key, tensor in found.items():
        storage = storages[tensor.untyped_storage().data_ptr()][0]
        offset = tensor.storage_offset()
        if tensor.shape == (3,) and offset == 2 and storage == first:
            storage, offset = 77, 0
        dump(out, (ids[key], storage, StorageType(f"{names[tensor.dtype]}Tensor")))
        out.write(struct.pack("<ii", tensor.dim(), 0))
        out.write(struct.pack(f"<{2 * tensor.dim() + 1}q", *tensor.shape, *tensor.stride(), offset))
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data.getvalue()), 1.5  # a fraction needs an extended header
            tar.addfile(info, io.BytesIO(data.getvalue()))


def test_tar(quire, tmp_path):
    base = torch.arange(24, dtype=torch.float32)
    value = collections.OrderedDict(
        a=base, b=base.reshape(4, 6).t(), part=base[2:5], n=torch.arange(5), raw=random_tensor(torch.uint8, 7),
        deep={"x": torch.ones(2, 2), "again": base}, epoch=3)  # fmt: skip
    value["deep"]["same"] = value["a"]
    save_tar(tmp_path / "x.pt", value)
    loaded = torch.load(tmp_path / "x.pt", weights_only=False)
    assert torch.equal(loaded["b"], value["b"]) and torch.equal(loaded["part"], value["part"])
    listed = check(quire, tmp_path / "x.pt", value, "torch-tar")
    assert listed["metadata"] == {"epoch": 3}


def mutants(data, count, seed):
    """Pickles with a byte or two changed, removed or repeated."""
    rng = random.Random(seed)
    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(rng.choice([1, 1, 2])):
            at = rng.randrange(2, len(mutant) - 1)
            kind = rng.random()
            if kind < 0.6:
                mutant[at] = rng.choice([mutant[at] ^ 1 << rng.randrange(8), rng.randrange(256), mutant[at] + 1 & 255])
            elif kind < 0.8:
                del mutant[at : at + rng.randint(1, 12)]
            else:
                mutant[at:at] = mutant[at : at + rng.randint(1, 30)]
        yield bytes(mutant)


@pytest.mark.filterwarnings("ignore")
def test_what_is_accepted_is_what_torch_reads(quire, tmp_path):
    """Damaged pickles in archives with right checksums: refused, or read as torch reads them."""
    value = {"a": torch.arange(12.0).reshape(3, 4), "b": {"t": torch.arange(12.0).reshape(3, 4).t()}, "n": torch.ones(5)}
    value["tied"] = value["a"]
    torch.save(value, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    compared = 0
    for mutant in mutants(records["x/data.pkl"], 300, seed=5):
        with zipfile.ZipFile(tmp_path / "y.pt", "w") as archive:
            for name, data in records.items():
                archive.writestr(name, mutant if name == "x/data.pkl" else data)
        done = quire.run("inspect", tmp_path / "y.pt", "--checksums", "--json")
        assert done.returncode in (0, 1) and done.stderr.count(b"\n") == done.returncode
        if done.returncode != 0:
            continue
        try:
            loaded = torch.load(tmp_path / "y.pt", weights_only=True)
        except Exception:  # of any kind, from torch's depths
            continue
        compared += 1
        listed = {t["name"]: (t["shape"], t["dtype"], t["xxh3"]) for t in json.loads(done.stdout)["tensors"]}
        assert listed == {n: (list(t.shape), DTYPES[t.dtype], xxh3(t)) for n, t in flatten(loaded)}, mutant
    assert compared > 10
