#include "quantize/quantize_file.h"

#include <fnmatch.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "format/manifest_check.h"
#include "format/packed_layout.h"
#include "format/writer.h"
#include "quantize/encode_tensor.h"
#include "quantize/outliers.h"
#include "quantize/stored_rows.h"

namespace quire {
namespace {

// Whether a tensor's stored bytes are what the plan wants, so that nothing is lost by encoding them
// again.
bool IsCarried(const TensorView& tensor, const pb::Manifest& plan, const pb::TensorEntry& entry) {
  if (tensor.geometry.encoding != static_cast<Encoding>(entry.encoding())) return false;
  if (static_cast<Layout>(entry.layout()) != tensor.geometry.layout) return false;
  const int8_t* codebook = CodebookOf(plan, entry);
  return codebook == nullptr ||
         std::equal(codebook, codebook + Info(tensor.geometry.encoding).codebook_size,
                    tensor.codebook);
}

// FailedPrecondition where a scale is not finite: no file is made that does not verify.
absl::Status Carry(const TensorView& tensor, FileWriter& writer) {
  const Geometry& geometry = tensor.geometry;
  for (int64_t unit = 0; unit < geometry.units(); ++unit) {
    if (ScalesAreFinite(geometry, tensor.data + unit * geometry.unit_bytes())) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("a scale near row ", unit * geometry.unit_rows(), " is not finite"));
  }
  constexpr int64_t kStep = int64_t{8} << 20;
  for (int64_t offset = 0; offset < tensor.bytes; offset += kStep) {
    absl::Status status = writer.Append(
        absl::MakeConstSpan(tensor.data + offset, std::min(kStep, tensor.bytes - offset)));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<KeepRule> ParseKeepRule(absl::string_view text) {
  const size_t equals = text.rfind('=');
  if (equals != absl::string_view::npos && equals > 0) {
    for (const EncodingInfo& info : kEncodings) {
      if (text.substr(equals + 1) == info.name) {
        return KeepRule{std::string(text.substr(0, equals)), info.encoding};
      }
    }
  }
  std::string names;
  for (const EncodingInfo& info : kEncodings) absl::StrAppend(&names, " ", info.name);
  return absl::InvalidArgumentError(absl::StrCat(
      "--keep wants PATTERN=TYPE such as \"layers.0.*=q8\", not \"", text, "\"; types:", names));
}

absl::StatusOr<pb::Manifest> PlanQuantization(const ModelFile& source, const Scheme& scheme,
                                              absl::Span<const KeepRule> rules) {
  pb::Manifest plan = source.manifest();
  std::vector<SchemeTensor> tensors;
  for (const TensorView& tensor : source.tensors()) {
    absl::StatusOr<TensorName> name = ParseTensorName(tensor.name);
    if (!name.ok()) return name.status();
    tensors.push_back({*name, tensor.geometry.rows, tensor.geometry.cols});
  }
  for (const KeepRule& rule : rules) {
    bool matched = false;
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].name.role == TensorRole::kVector) continue;
      if (fnmatch(rule.pattern.c_str(), plan.tensors(static_cast<int>(i)).name().c_str(), 0) != 0)
        continue;
      tensors[i].kept = rule.encoding;
      matched = true;
    }
    if (!matched) {
      return absl::InvalidArgumentError(absl::StrCat("--keep ", rule.pattern, "=",
                                                     Info(rule.encoding).name,
                                                     " matches no matrix of ", source.path()));
    }
  }
  const int n_layers = static_cast<int>(plan.config().n_layers());
  std::vector<double> sensitivities;
  if (scheme.mixed) {
    const auto read = [&](size_t index, int64_t first_row, int64_t n_rows, int64_t n_cols,
                          float* out) {
      DecodeColumns(source.tensors()[index], first_row, n_rows, n_cols, out);
      return absl::OkStatus();
    };
    const absl::StatusOr<std::vector<double>> outliers = HiddenOutliers(tensors, n_layers, read);
    if (!outliers.ok()) return outliers.status();
    sensitivities = PriorSensitivities(tensors, n_layers, *outliers);
  }
  const std::vector<Encoding> encodings =
      ChooseEncodings(scheme, tensors, n_layers, plan.config().tied_embeddings(), sensitivities);
  plan.set_scheme(scheme.name);
  ClearCodebooks(&plan);
  for (size_t i = 0; i < encodings.size(); ++i) {
    pb::TensorEntry* entry = plan.mutable_tensors(static_cast<int>(i));
    entry->clear_xxh3();
    // A tensor that has codes already keeps its codebook.
    const TensorView& from = source.tensors()[i];
    const bool same = from.geometry.encoding == encodings[i];
    SetEncoding(encodings[i], same ? from.codebook : CodebookFor(encodings[i]), &plan, entry);
  }
  const int64_t tokenizer_bytes =
      source.has_tokenizer() ? static_cast<int64_t>(source.manifest().tokenizer().bytes()) : 0;
  absl::StatusOr<int64_t> file_bytes = PlanFile(tokenizer_bytes, &plan);
  if (!file_bytes.ok()) return file_bytes.status();
  return plan;
}

absl::StatusOr<std::vector<QuantizedTensor>> QuantizeFile(
    const ModelFile& source, const pb::Manifest& plan, const std::string& path, bool overwrite,
    int64_t memory_budget, ThreadPool& pool, absl::FunctionRef<void(int64_t done_bytes)> progress,
    const EncodeNamed& encode) {
  std::string tokenizer;
  if (source.has_tokenizer()) {
    absl::Status status = source.LoadTokenizer().status();  // checks it
    if (!status.ok()) return status;
    const pb::Section& section = source.manifest().tokenizer();
    tokenizer.assign(reinterpret_cast<const char*>(source.mapping().data()) + section.offset(),
                     section.bytes());
  }
  absl::StatusOr<std::unique_ptr<FileWriter>> writer =
      FileWriter::Create(path, plan, tokenizer, overwrite);
  if (!writer.ok()) return writer.status();
  const TensorSink sink{pool,
                        [&](absl::Span<const uint8_t> bytes) { return (*writer)->Append(bytes); },
                        memory_budget};
  std::vector<QuantizedTensor> results;
  int64_t done_bytes = 0;
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    const TensorView& tensor = source.tensors()[i];
    const pb::TensorEntry& entry = plan.tensors(static_cast<int>(i));
    if (i + 1 < source.tensors().size()) {  // the next is read from disk while this one is encoded
      const TensorView& next = source.tensors()[i + 1];
      madvise(const_cast<uint8_t*>(next.data), next.bytes, MADV_WILLNEED);
    }
    QuantizedTensor result;
    absl::Status status = CheckSum(tensor);
    result.carried = IsCarried(tensor, plan, entry);
    if (status.ok() && result.carried) {
      status = Carry(tensor, **writer);
    } else if (status.ok()) {
      absl::StatusOr<EncodingError> error = encode(
          tensor.name, GeometryOf(entry), CodebookOf(plan, entry),
          [&](int64_t first_row, int64_t n_rows, float* out) {
            DecodeRows(tensor, first_row, n_rows, out);
            return absl::OkStatus();
          },
          sink);
      status = error.status();
      if (error.ok() && error->squared_norm > 0) {
        result.relative_rms_error = std::sqrt(error->squared_error / error->squared_norm);
      }
    }
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat(source.path(), ": tensor \"", tensor.name,
                                                      "\": ", status.message()));
    }
    results.push_back(result);
    done_bytes += tensor.bytes;
    progress(done_bytes);
  }
  absl::Status status = source.mapping().CheckUnchanged();
  if (status.ok()) status = (*writer)->Finish();
  if (!status.ok()) return status;
  return results;
}

}  // namespace quire
