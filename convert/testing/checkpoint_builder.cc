#include "convert/testing/checkpoint_builder.h"

#include <zlib.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

constexpr uint32_t kIn64 = 0xffffffff;

std::string Deflate(const std::string& data) {
  z_stream stream = {};
  // Fuzzers pack small records often, and a window of 32 KiB takes longer to clear than to fill.
  const bool small = data.size() < 4096;
  deflateInit2(&stream, 9, Z_DEFLATED, small ? -12 : -MAX_WBITS, small ? 4 : 9, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, data.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = data.size();
  stream.next_out = reinterpret_cast<Bytef*>(&out[0]);
  stream.avail_out = out.size();
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

uint32_t Crc(const std::string& data) {
  return crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size());
}

// torch's extra field: brings the data to a multiple of 64.
std::string Padding(size_t data_offset) {
  const size_t n = 64 - (data_offset + 4) % 64;
  return "FB" + Le(n, 2) + std::string(n, 'Z');
}

}  // namespace

std::string Le(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(i < 8 ? value >> (8 * i) : 0));
  return out;
}

std::string BuildZip(absl::Span<const ZipEntry> entries, const ZipTail& tail) {
  std::string out = tail.prefix, central;
  for (const ZipEntry& e : entries) {
    const std::string stored = e.deflate ? Deflate(e.data) : e.data;
    const uint16_t method = e.method.value_or(e.deflate ? 8 : 0);
    const uint16_t flags = e.flags.value_or(e.descriptor ? 0x808 : 0);
    const uint32_t crc = e.crc32.value_or(Crc(e.data));
    const uint64_t bytes = e.bytes.value_or(e.data.size());
    const uint64_t stored_bytes = e.stored_bytes.value_or(stored.size());
    const uint64_t offset = e.offset.value_or(out.size());
    const std::string local_name = e.local_name.value_or(e.name);

    std::string extra;
    if (e.zip64) extra = Le(1, 2) + Le(16, 2) + Le(0, 16);
    extra =
        e.local_extra.value_or(extra + Padding(out.size() + 30 + local_name.size() + extra.size()));
    out += "PK\3\4" + Le(0, 2) + Le(flags, 2) + Le(e.local_method.value_or(method), 2) + Le(0, 4);
    out += Le(e.local_crc32.value_or(e.descriptor ? 0 : crc), 4);
    out += Le(e.descriptor ? 0 : stored_bytes, 4);
    out += Le(e.local_bytes.value_or(e.descriptor ? 0 : bytes), 4);
    out += Le(local_name.size(), 2) + Le(extra.size(), 2) + local_name + extra + stored;
    if (e.descriptor) {
      const int size = e.zip64 ? 8 : 4;
      out += "PK\7\10" + Le(e.descriptor_crc32.value_or(crc), 4) + Le(stored_bytes, size) +
             Le(e.descriptor_bytes.value_or(bytes), size);
    }

    std::string central_extra;
    if (e.zip64)
      central_extra = Le(1, 2) + Le(24, 2) + Le(bytes, 8) + Le(stored_bytes, 8) + Le(offset, 8);
    central_extra = e.central_extra.value_or(central_extra);
    central += "PK\1\2" + Le(0, 4) + Le(flags, 2) + Le(method, 2) + Le(0, 4) + Le(crc, 4);
    central += Le(e.zip64 ? kIn64 : stored_bytes, 4) + Le(e.zip64 ? kIn64 : bytes, 4);
    central +=
        Le(e.name.size(), 2) + Le(central_extra.size(), 2) + Le(0, 2) + Le(e.disk, 2) + Le(0, 6);
    central += Le(e.zip64 ? kIn64 : offset, 4) + e.name + central_extra;
  }
  const uint64_t at = tail.directory_offset.value_or(out.size());
  const uint64_t directory_bytes = tail.directory_bytes.value_or(central.size());
  const uint64_t records = tail.records.value_or(entries.size());
  out += central + tail.before_end;
  if (tail.zip64) {
    const uint64_t end64 = tail.end64_offset.value_or(out.size());
    out += "PK\6\6" + Le(44, 8) + Le(0x031e, 2) + Le(45, 2) + Le(0, 8) + Le(records, 8) +
           Le(records, 8) + Le(directory_bytes, 8) + Le(at, 8);
    out += "PK\6\7" + Le(0, 4) + Le(end64, 8) + Le(1, 4);
  }
  const uint64_t records16 = tail.zip64 && records > 0xffff ? 0xffff : records;
  out += "PK\5\6" + Le(tail.disk, 2) + Le(0, 2) + Le(records16, 2) + Le(records16, 2);
  out += Le(tail.zip64 && directory_bytes > kIn64 ? kIn64 : directory_bytes, 4);
  out += Le(tail.zip64 && at > kIn64 ? kIn64 : at, 4) + Le(tail.comment.size(), 2) + tail.comment;
  return out + tail.after_end;
}

Pickler& Pickler::Int(int64_t value) {
  if (value >= 0 && value < 256) return Raw("K" + Le(value, 1));
  return Raw(std::string("\x8a\x08", 2) + Le(value, 8));
}

Pickler& Pickler::Str(absl::string_view text) { return Raw("X" + Le(text.size(), 4)).Raw(text); }

Pickler& Pickler::Global(absl::string_view module, absl::string_view name) {
  return Raw(absl::StrCat("c", module, "\n", name, "\n"));
}

Pickler& Pickler::Ints(absl::Span<const int64_t> values) {
  Mark();
  for (int64_t v : values) Int(v);
  return Tuple();
}

Pickler& Pickler::Storage(absl::string_view type, absl::string_view key, int64_t elements) {
  return Mark()
      .Str("storage")
      .Global("torch", type)
      .Str(key)
      .Str("cpu")
      .Int(elements)
      .Tuple()
      .Raw("Q");
}

Pickler& Pickler::View(int64_t offset, absl::Span<const int64_t> shape,
                       absl::Span<const int64_t> strides) {
  return Int(offset)
      .Ints(shape)
      .Ints(strides)
      .Raw("\x89")
      .Global("collections", "OrderedDict")
      .Raw(")R");
}

Pickler& Pickler::Tensor(absl::string_view type, absl::string_view key, int64_t elements,
                         int64_t offset, absl::Span<const int64_t> shape,
                         absl::Span<const int64_t> strides) {
  Global("torch._utils", "_rebuild_tensor_v2").Mark().Storage(type, key, elements);
  return View(offset, shape, strides).Tuple().Reduce();
}

std::vector<ZipEntry> TorchEntries(
    const std::string& pickle, const std::vector<std::pair<std::string, std::string>>& storages) {
  std::vector<ZipEntry> entries(2);
  entries[0].name = "x/data.pkl";
  entries[0].data = pickle;
  entries[1].name = "x/byteorder";
  entries[1].data = "little";
  for (const auto& [key, data] : storages) {
    entries.emplace_back();
    entries.back().name = "x/data/" + key;
    entries.back().data = data;
  }
  entries.emplace_back();
  entries.back().name = "x/version";
  entries.back().data = "3\n";
  return entries;
}

std::string TorchZipFile(const std::string& pickle,
                         const std::vector<std::pair<std::string, std::string>>& storages) {
  return BuildZip(TorchEntries(pickle, storages));
}

std::string FloatsPickle(absl::string_view name, int n) {
  return Pickler()
      .Proto(2)
      .Dict()
      .Str(name)
      .Tensor("FloatStorage", "0", n, 0, {n}, {1})
      .SetItem()
      .Stop();
}

std::string FloatsData(int n) {
  std::string data(4 * n, '\0');
  for (int i = 0; i < n; ++i) {
    const float value = i;
    std::memcpy(&data[4 * i], &value, 4);
  }
  return data;
}

std::string LegacyFile(const std::string& object, const std::vector<std::string>& keys,
                       const std::vector<std::pair<int64_t, std::string>>& storages) {
  std::string out("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
  out += Pickler().Proto(2).Raw("M" + Le(1001, 2)).Stop();
  out += Pickler().Proto(2).Dict().Str("little_endian").Raw("\x88").SetItem().Stop();
  out += object;
  Pickler list;
  list.Proto(2).Raw("](");
  for (const std::string& key : keys) list.Str(key);
  out += list.Raw("e").Stop();
  for (const auto& [elements, data] : storages) out += Le(elements, 8) + data;
  return out;
}

}  // namespace quire
