#!/usr/bin/env python3
"""Writes the seeds of the corpora zip, pickle and checkpoint: small valid files.

  tests/fuzz/make_torch_seeds.py        (needs torch, safetensors)
"""
import collections
import io
import pathlib
import pickle
import tarfile
import zipfile

import safetensors.torch
import torch

CORPUS = pathlib.Path(__file__).parent / "corpus"


def values():
    torch.manual_seed(1)
    weight = torch.randn(3, 4)
    yield "tensor", weight
    yield "state", collections.OrderedDict(a=weight, tied=weight, t=weight.t(), row=weight[1])
    yield "dtypes", [torch.zeros(2, dtype=d) for d in
                     (torch.bfloat16, torch.int64, torch.bool, torch.float8_e5m2, torch.uint16, torch.complex64)]
    yield "training", {"model": {"w": torch.nn.Parameter(torch.ones(2)), "empty": torch.empty(0, 3)},
                       "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]},
                       "args": {"dim": 64, "name": "x", "flag": True, "none": None, "list": [1, 2]},
                       "size": torch.Size([1]), "dtype": torch.float16, "device": torch.device("cpu"),
                       "set": {1}, "bytes": b"\xff", "big": 2**70}  # fmt: skip


def tar(pickled):
    files = {"pickle": pickled, "tensors": pickle.dumps(0, 2), "storages": pickle.dumps(0, 2) + pickle.dumps([], 2)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def main():
    for name in ("zip", "pickle", "checkpoint"):
        (CORPUS / name).mkdir(exist_ok=True)
    for name, value in values():
        for protocol in (2, 4):
            out = io.BytesIO()
            torch.save(value, out, pickle_protocol=protocol)
            archive = zipfile.ZipFile(out)
            (CORPUS / "pickle" / f"{name}{protocol}.pkl").write_bytes(archive.read("archive/data.pkl"))
            deflated = io.BytesIO()
            with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as packed:
                for record in archive.namelist():
                    packed.writestr(record, archive.read(record))
            legacy = io.BytesIO()
            torch.save(value, legacy, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
            if protocol == 2:
                (CORPUS / "zip" / f"{name}.zip").write_bytes(out.getvalue())
                (CORPUS / "zip" / f"{name}-deflated.zip").write_bytes(deflated.getvalue())
                (CORPUS / "checkpoint" / f"{name}.pt").write_bytes(out.getvalue())
                (CORPUS / "checkpoint" / f"{name}-deflated.pt").write_bytes(deflated.getvalue())
            (CORPUS / "checkpoint" / f"{name}-legacy{protocol}.bin").write_bytes(legacy.getvalue())
    (CORPUS / "pickle" / "protocol0.pkl").write_bytes(pickle.dumps({"a": [1, 2.5, "é", None, True, 2**70]}, 0))
    (CORPUS / "pickle" / "protocol5.pkl").write_bytes(pickle.dumps({"a": [1, b"x", bytearray(b"y"), {1}, (1, 2)]}, 5))
    (CORPUS / "checkpoint" / "tar.pt").write_bytes(tar(pickle.dumps({"a": 1}, 2)))
    tensors = {"a": torch.ones(2, 3), "b": torch.zeros(0), "c": torch.tensor(1, dtype=torch.bfloat16)}
    (CORPUS / "checkpoint" / "x.safetensors").write_bytes(safetensors.torch.save(tensors, {"format": "pt"}))


if __name__ == "__main__":
    main()
