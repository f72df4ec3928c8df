// Files that commands keep beside a model: measurements of a calibration, unfinished work, saved
// logits. Their headers and checksums are made of the input's first bytes.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "quantize/calibration_file.h"
#include "quantize/work_file.h"
#include "runtime/logits_file.h"
#include "tests/fuzz/fuzz_file.h"

namespace quire {
namespace {

void CheckRefusal(const absl::Status& status) {
  const absl::string_view message = status.message();
  FuzzCheck(!message.empty() && message.size() < 2000, "a refusal says why, in a line");
  FuzzCheck(message.find('\n') == absl::string_view::npos, "a message is one line");
}

// kind, flags, six small numbers, and two changes of a field (which, shifted how far, what): the
// rest is content, repeated.
constexpr size_t kHeadBytes = 8 + 2 * 3;
enum Flags : uint8_t { kMoments = 1, kSumHeader = 2, kSumContent = 4, kCut = 8, kGrown = 16 };

class Input {
 public:
  Input(const uint8_t* data, size_t size) : head_(data), content_(data + kHeadBytes, data + size) {
    if (content_.empty()) content_.push_back('\0');
  }
  bool has(Flags flag) const { return (head_[1] & flag) != 0; }
  uint64_t number(int i) const { return head_[2 + i]; }
  // `value` of field `which`, or what it was changed to.
  uint64_t Field(int which, uint64_t value) const {
    for (const uint8_t* change = head_ + 8; change < head_ + kHeadBytes; change += 3) {
      if (change[0] == which + 1)
        value += static_cast<uint64_t>(static_cast<int8_t>(change[2])) << change[1] % 64;
    }
    return value;
  }
  void AddContent(size_t bytes, std::string* out) const {
    for (const size_t end = out->size() + bytes; out->size() < end;)
      out->append(content_, 0, end - out->size());
  }
  // The file cut or longer, where the flags say so.
  std::string Finish(std::string file) const {
    if (has(kCut)) file.resize(file.size() - std::min<size_t>(file.size(), number(5)));
    if (has(kGrown)) file.append(number(5) + 1, '\0');
    return file;
  }

 private:
  const uint8_t* const head_;
  std::string content_;
};

template <typename T>
void Put(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string PathOf(const std::string& file) {
  return FuzzFile(reinterpret_cast<const uint8_t*>(file.data()), file.size());
}

void Calibration(const Input& input) {
  const uint32_t columns[] = {static_cast<uint32_t>(1 + input.number(1)),
                              static_cast<uint32_t>(1 + input.number(2)),
                              static_cast<uint32_t>(1 + input.number(3))};
  const uint32_t layers = 1 + static_cast<uint32_t>(input.number(0)) % 3;
  const bool moments = input.has(kMoments);
  std::string file = "QUIRECAL";
  Put(static_cast<uint32_t>(input.Field(0, 1)), &file);
  Put(static_cast<uint32_t>(input.Field(1, moments)), &file);
  Put(static_cast<uint32_t>(input.Field(2, layers)), &file);
  for (int i = 0; i < 3; ++i) Put(static_cast<uint32_t>(input.Field(3 + i, columns[i])), &file);
  Put(input.Field(6, 1 + input.number(4)), &file);
  Put(input.Field(7, 0), &file);
  Put(input.Field(8, 0), &file);
  Put(input.has(kSumHeader) ? XXH3_64bits(file.data(), file.size()) : 0, &file);
  for (uint32_t layer = 0; layer < layers; ++layer) {
    for (const uint32_t n : {columns[0], columns[1], columns[0], columns[2]}) {
      const size_t begin = file.size();
      input.AddContent(4 * n + (moments ? SymmetricMatrix::Bytes(n) : 0), &file);
      Put(input.has(kSumContent) ? XXH3_64bits(&file[begin], file.size() - begin) : 0, &file);
    }
  }
  file = input.Finish(std::move(file));
  const auto opened = CalibrationFile::Open(PathOf(file));
  if (!opened.ok()) return CheckRefusal(opened.status());
  const CalibrationHeader& header = opened->header();
  for (int64_t layer = 0; layer < header.n_layers; ++layer) {
    for (int i = 0; i < kInputsOfLayer; ++i) {
      std::vector<float> squares, again;
      SymmetricMatrix matrix(0);
      const absl::Status status =
          opened->Read(layer, i, &squares, header.has_moments ? &matrix : nullptr);
      FuzzCheck(opened->Read(layer, i, &again, nullptr).ok() == status.ok(), "two reads agree");
      if (!status.ok()) {
        CheckRefusal(status);
        continue;
      }
      FuzzCheck(input.has(kSumContent), "a wrong checksum is seen");
      FuzzCheck(static_cast<int64_t>(squares.size()) == header.Columns(i), "all columns");
      for (const float square : squares)
        FuzzCheck(std::isfinite(square) && square >= 0, "mean squares are");
    }
  }
}

void Work(const Input& input) {
  const WorkFile::Shape shape{input.number(0), 1 + static_cast<int64_t>(input.number(1)) % 4,
                              1 + static_cast<int64_t>(input.number(2)) * 16,
                              1 + static_cast<int64_t>(input.number(3)) * 64};
  constexpr size_t kRecordBytes = 32 + kLayerMatrices.size() * sizeof(EncodingError);
  constexpr int64_t kAlignment = 16384;
  const auto align = [](int64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; };
  const int64_t states = align(64 + shape.layers * static_cast<int64_t>(kRecordBytes)),
                encoded = states + align(8 * shape.state_floats),
                end = encoded + align(shape.encoded_bytes);
  const int64_t done = static_cast<int64_t>(input.Field(5, input.number(4) % 5));
  std::string file;
  input.AddContent(static_cast<size_t>(end), &file);
  const auto sum = [&](int64_t begin, int64_t bytes) {
    return input.has(kSumContent)
               ? XXH3_64bits(&file[static_cast<size_t>(begin)], static_cast<size_t>(bytes))
               : 0;
  };
  std::string records;
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    const int64_t each = shape.encoded_bytes / shape.layers;
    const auto first = static_cast<int64_t>(input.Field(6, static_cast<uint64_t>(layer * each)));
    const auto bytes = static_cast<int64_t>(input.Field(7, static_cast<uint64_t>(each)));
    const bool inside =
        first >= 0 && bytes >= 0 && first <= end - encoded && bytes <= end - encoded - first;
    Put(first, &records);
    Put(bytes, &records);
    Put(inside ? sum(encoded + first, bytes) : 0, &records);
    Put(sum(states + (layer + 1) % 2 * 4 * shape.state_floats, 4 * shape.state_floats), &records);
    input.AddContent(kRecordBytes - 32, &records);
  }
  std::string header = "quirewrk";
  Put(static_cast<uint32_t>(input.Field(0, 1)), &header);
  Put(static_cast<uint32_t>(input.Field(1, static_cast<uint64_t>(shape.layers))), &header);
  Put(input.Field(2, shape.fingerprint), &header);
  Put(input.Field(3, static_cast<uint64_t>(shape.state_floats)), &header);
  Put(input.Field(4, static_cast<uint64_t>(shape.encoded_bytes)), &header);
  Put(done, &header);
  const size_t summed = done >= 0 && done <= shape.layers ? static_cast<size_t>(done) : 0;
  Put(input.has(kSumHeader) ? XXH3_64bits_withSeed(records.data(), summed * kRecordBytes,
                                                   XXH3_64bits(header.data(), header.size()))
                            : 0,
      &header);
  file.replace(0, header.size(), header);
  file.replace(64, records.size(), records);
  file = input.Finish(std::move(file));

  static const std::string path = "/dev/shm/quire_fuzz_work." + std::to_string(getpid());
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  FuzzCheck(fd >= 0 && write(fd, file.data(), file.size()) == static_cast<ssize_t>(file.size()),
            "a file in memory");
  close(fd);
  {
    auto work = WorkFile::Open(path, shape, input.has(kMoments));
    if (!work.ok()) {
      CheckRefusal(work.status());
    } else {
      const int64_t layers = (*work)->layers_done();
      FuzzCheck(layers >= 0 && layers <= shape.layers, "no more layers than there are");
      FuzzCheck(layers == 0 || layers == done, "as many layers as it says, or none");
      FuzzCheck(layers == 0 || (input.has(kSumHeader) && input.has(kSumContent)),
                "a wrong checksum is seen");
      if (layers < shape.layers) {
        std::fill_n((*work)->next_states(), shape.state_floats, 1.0f);
        std::fill_n((*work)->encoded(), shape.encoded_bytes, 2);
        const EncodingError errors[kLayerMatrices.size()] = {};
        FuzzCheck((*work)->FinishLayer(0, shape.encoded_bytes, errors).ok(), "a layer can be done");
      }
    }
  }
  unlink(path.c_str());
}

void Logits(const Input& input) {
  const LogitsHeader right{
      1 + static_cast<uint32_t>(input.number(0)), 2 + static_cast<uint32_t>(input.number(1)) % 16,
      1 + static_cast<uint32_t>(input.number(2)) % 4, static_cast<uint32_t>(input.number(3)) % 16};
  std::string file = "QLOGITS1";
  const uint32_t fields[] = {right.vocab_size, right.ctx, right.n_chunks, right.first};
  for (int i = 0; i < 4; ++i) Put(static_cast<uint32_t>(input.Field(i, fields[i])), &file);
  input.AddContent(4 * right.n_chunks * right.ctx, &file);
  if (right.first + 1 < right.ctx)
    input.AddContent(static_cast<size_t>(right.rows() * right.row_bytes()), &file);
  file = input.Finish(std::move(file));
  const auto opened = LogitsFile::Open(PathOf(file));
  if (!opened.ok()) return CheckRefusal(opened.status());
  const LogitsHeader& header = opened->header();
  FuzzCheck(opened->tokens().size() == size_t{header.n_chunks} * header.ctx, "all tokens");
  std::vector<uint8_t> row(static_cast<size_t>(header.row_bytes()));
  std::vector<float> values(header.vocab_size);
  for (int64_t i = 0; i < header.rows(); ++i) {
    FuzzCheck(opened->Read(i, 1, absl::MakeSpan(row)).ok(), "every row is there");
    DecodeLogitsRow(row.data(), absl::MakeSpan(values));
    double sum = 0;
    for (const float value : values) sum += std::exp(static_cast<double>(value));
    FuzzCheck(std::abs(sum - 1) < 1e-3, "a distribution");
  }
}

}  // namespace
}  // namespace quire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire;
  if (size < kHeadBytes) return 0;
  const Input input(data, size);
  switch (data[0] % 3) {
    case 0:
      Calibration(input);
      break;
    case 1:
      Work(input);
      break;
    default:
      Logits(input);
  }
  return 0;
}
