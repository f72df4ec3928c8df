"""A reader of .quire files, written from format/FORMAT.md alone, sharing no code with the C++ one: the document's own test.

    f = QuireFile("model.quire"); f.config["n_layers"]; f.tensor("layers.0.wq")   # numpy f32, as stored
"""
import struct

import numpy as np
import xxhash


def fields(data):
    """A protobuf message's fields as (number, value); length-delimited values are bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            value = varint()
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = data[at : at + size], at + size
        else:
            size = varint()
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def u64(raw):
    return struct.unpack("<Q", raw)[0]


def up(n, m):
    return -(-n // m) * m


# code: name, code bits, bytes of a group's scale, has an f32 per row
ENCODINGS = {1: ("f32", 32, 0, False), 2: ("f16", 16, 0, False), 3: ("bf16", 16, 0, False),
             4: ("q8", 8, 2, False), 5: ("q4", 4, 1, True), 6: ("q4_0", 4, 2, False),
             7: ("q5", 5, 1, True), 8: ("q6", 6, 1, True), 9: ("q4_1", 4, 4, False)}
FEATURES = {"codebook32"}
CONFIG = {1: "architecture", 2: "n_layers", 3: "n_heads", 4: "n_kv_heads", 5: "head_dim", 6: "hidden_dim", 7: "ffn_dim",
          8: "vocab_size", 9: "context_tokens", 10: "norm_eps", 11: "rope_theta", 13: "tied_embeddings", 14: "sliding_window"}


class Tensor:
    def __init__(self, message):
        self.shape, self.codebook = [], None
        for number, value in fields(message):
            if number == 1:
                self.name = value.decode()
            elif number == 2:
                self.shape = [v for v in unpack_varints(value)] if isinstance(value, bytes) else self.shape + [value]
            elif number == 3:
                self.encoding, self.code_bits, self.scale_bytes, self.row_scale = ENCODINGS[value]
            elif number == 4:
                self.panels = value == 1
            elif number == 5:
                self.offset = u64(value)
            elif number == 6:
                self.bytes = u64(value)
            elif number == 7:
                self.xxh3 = u64(value)
            elif number == 8:
                self.codebook = value


def unpack_varints(data):
    value = shift = 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield value
            value = shift = 0


class QuireFile:
    def __init__(self, path):
        self.data = open(path, "rb").read()
        d = self.data
        assert d[:8] == bytes.fromhex("8951554952450d0a"), "magic"
        version, header_bytes, manifest_bytes, manifest_xxh3, file_bytes = struct.unpack("<IIQQQ", d[8:40])
        assert (version, header_bytes, file_bytes) == (1, 64, len(d)) and d[40:56] == bytes(16)
        assert u64(d[56:64]) == xxhash.xxh3_64_intdigest(d[:56]), "header checksum"
        manifest = d[64 : 64 + manifest_bytes]
        assert manifest_xxh3 == xxhash.xxh3_64_intdigest(manifest), "manifest checksum"
        self.tensors, self.codebooks, self.config, end = {}, [], {}, 64 + manifest_bytes
        for number, value in fields(manifest):
            if number == 1:
                for key, v in fields(value):
                    if key in (10, 11):
                        v = struct.unpack("<f" if key == 10 else "<d", v)[0]
                    self.config[CONFIG.get(key, key)] = v.decode() if key == 1 else v
            elif number == 2:
                t = Tensor(value)
                assert t.offset == up(end, 16384) and not any(d[end : t.offset]), t.name
                end = t.offset + t.bytes
                assert t.xxh3 == xxhash.xxh3_64_intdigest(d[t.offset : end]), t.name
                self.tensors[t.name] = t
            elif number == 6:
                if value.decode() not in FEATURES:
                    raise NotImplementedError("required feature " + value.decode())
            elif number == 3:
                self.codebooks.append(np.frombuffer(next(v for k, v in fields(value) if k == 1), np.int8))
            elif number == 4:
                section = dict(fields(value))
                offset, size = u64(section[1]), u64(section[2])
                assert offset == up(end, 16384) and not any(d[end:offset])
                end = offset + size
                self.tokenizer = d[offset:end]
                assert u64(section[3]) == xxhash.xxh3_64_intdigest(self.tokenizer)
        assert len(d) == up(end, 16384) and not any(d[end:])

    def tensor(self, name):
        t = self.tensors[name]
        raw = np.frombuffer(self.data, np.uint8, t.bytes, t.offset)
        rows, cols = (1, t.shape[0]) if len(t.shape) == 1 else t.shape
        values = self._panels(t, raw, rows, cols) if t.panels else self._rows(t, raw, rows, cols)
        return values.reshape(t.shape)

    def _elements(self, t, codes):
        """codes: bytes, of 4 to 6 bits already one a byte."""
        if t.code_bits == 32:
            return codes.view(np.float32)
        if t.encoding == "f16":
            return codes.view(np.float16).astype(np.float32)
        if t.encoding == "bf16":
            return (codes.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        if t.encoding == "q8":
            return codes.view(np.int8).astype(np.float32)
        if t.encoding in ("q4_0", "q4_1", "q6"):
            return codes.astype(np.float32) - {"q4_0": 8, "q4_1": 0, "q6": 32}[t.encoding]
        return self.codebooks[t.codebook][codes].astype(np.float32)

    def _scales(self, t, raw):
        """[group, row, scale (and minimum)]"""
        return raw.view(np.int8 if t.scale_bytes == 1 else np.float16).astype(np.float32).reshape(-1, max(1, t.scale_bytes // 2))

    def _codes(self, t, raw, rows):
        """A group's bytes of 4 to 6 bits a code -> [line, row, column in line], one code a byte."""
        line = 4 * rows
        low = raw[: 4 * line].reshape(4, line)
        codes = np.concatenate([low & 15, low >> 4])
        planes = raw[4 * line :].reshape(-1, line)
        for j in range(8):
            if t.code_bits == 5:
                codes[j] |= (planes[0] >> j & 1) << 4
            elif t.code_bits == 6:
                codes[j] |= (planes[j // 4] >> j % 4 * 2 & 3) << 4
        return codes.reshape(8, rows, 4)

    def _panels(self, t, raw, rows, cols):
        groups, panels = up(cols, 32) // 32, up(rows, 16) // 16
        out = np.zeros((panels * 16, groups * 32), np.float32)
        at = 0
        for p in range(panels):
            row_scale = np.ones(16, np.float32)
            if t.row_scale:
                row_scale, at = raw[at : at + 64].view(np.float32), at + 64
            for first in range(0, groups, 4):
                n = min(4, groups - first)
                size = up(16 * n * t.scale_bytes, 64)
                scales = self._scales(t, raw[at : at + 16 * n * t.scale_bytes]).reshape(n, 16, -1) if t.scale_bytes else None
                at += size
                for g in range(n):
                    size = 16 * 32 * t.code_bits // 8
                    codes, at = raw[at : at + size], at + size
                    if t.code_bits < 8:
                        codes = self._codes(t, codes, 16)
                    per_line = 4 if t.code_bits < 8 else 32 // t.code_bits
                    values = self._elements(t, np.ascontiguousarray(codes).reshape(-1)).reshape(-1, 16, per_line)
                    values = values.transpose(1, 0, 2).reshape(16, 32)
                    if scales is not None:
                        values = (row_scale * scales[g, :, 0])[:, None] * values
                        if t.encoding == "q4_1":
                            values = values + scales[g, :, 1:]
                    out[p * 16 : p * 16 + 16, (first + g) * 32 : (first + g + 1) * 32] = values
        assert at == t.bytes
        return out[:rows, :cols]

    def _rows(self, t, raw, rows, cols):
        if not t.scale_bytes:
            return self._elements(t, raw).reshape(rows, cols)  # refuses any other number of bytes
        groups = up(cols, 32) // 32
        head = up((4 if t.row_scale else 0) + groups * t.scale_bytes, 64)
        raw = raw.reshape(rows, head + groups * 4 * t.code_bits)
        out = np.zeros((rows, groups * 32), np.float32)
        for r in range(rows):
            start = 4 if t.row_scale else 0
            row_scale = raw[r, :4].view(np.float32)[0] if t.row_scale else np.float32(1)
            scales = self._scales(t, raw[r, start : start + groups * t.scale_bytes])
            codes = raw[r, head:]
            if t.code_bits < 8:
                codes = np.concatenate([self._codes(t, group, 1).reshape(-1) for group in codes.reshape(groups, -1)])
            values = (row_scale * scales[:, :1]) * self._elements(t, codes).reshape(groups, 32)
            out[r] = (values + scales[:, 1:] if t.encoding == "q4_1" else values).reshape(-1)
        return out[:, :cols]
