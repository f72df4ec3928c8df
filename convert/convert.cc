#include "convert/convert.h"

#include <unistd.h>

#include <cmath>
#include <future>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "convert/gguf.h"
#include "convert/quantized_source.h"
#include "convert/tokenizer_import.h"
#include "format/file.h"
#include "format/manifest_check.h"
#include "format/version.h"
#include "format/writer.h"
#include "quantize/encode_tensor.h"
#include "quantize/outliers.h"
#include "quantize/scheme.h"
#include "runtime/text/utf8.h"
#include "runtime/tokenizer.h"

namespace quire {
namespace {

absl::StatusOr<pb::Tokenizer> GgufTokenizer(const std::string& path) {
  absl::StatusOr<GgufTokenizerFields> fields = ReadGgufTokenizer(path);
  if (!fields.ok()) return fields.status();
  absl::StatusOr<pb::Tokenizer> tokenizer = ImportGgufTokenizer(*fields);
  if (tokenizer.ok()) return tokenizer;
  return absl::Status(tokenizer.status().code(),
                      absl::StrCat(path, ": ", tokenizer.status().message()));
}

absl::StatusOr<pb::Tokenizer> FindTokenizer(const ConvertOptions& options,
                                            const TensorSource& source) {
  if (!options.tokenizer.empty()) {
    return IsFolder(options.tokenizer) ? ImportTokenizerFolder(options.tokenizer)
                                       : ImportTokenizerFile(options.tokenizer);
  }
  absl::StatusOr<pb::Tokenizer> tokenizer;
  if (source.container() == "gguf") {
    tokenizer = GgufTokenizer(options.source);
  } else {
    const std::string folder = FolderOf(options.source);
    tokenizer = ImportTokenizerFolder(folder);
    if (absl::IsNotFound(tokenizer.status()) &&
        access((folder + "params.json").c_str(), F_OK) == 0) {
      // Meta's downloads keep one tokenizer.model for all sizes, a folder above them.
      tokenizer = ImportTokenizerFolder(folder + "..");
    }
  }
  if (absl::IsNotFound(tokenizer.status())) {
    return absl::NotFoundError(
        absl::StrCat(tokenizer.status().message(),
                     "; name one with --tokenizer FILE, or go without text: --tokenizer none"));
  }
  return tokenizer;
}

// `--type source`: the encoding that keeps every value, where there is one; f16 for other ggml
// blocks.
Encoding SourceEncoding(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return Encoding::kF16;
    case DType::kBF16:
      return Encoding::kBF16;
    case DType::kGgmlQ4_0:
      return Encoding::kQ4_0;
    case DType::kGgmlQ4_1:
      return Encoding::kQ4_1;
    case DType::kGgmlQ8_0:
      return Encoding::kQ8;
    default:
      return Info(dtype).block_elements > 1 ? Encoding::kF16 : Encoding::kF32;
  }
}

absl::Status NotDecodable(const CanonicalTensor& tensor, DType dtype) {
  return absl::UnimplementedError(absl::StrCat("tensor \"", tensor.name, "\": elements of type ",
                                               Info(dtype).name, " cannot be converted"));
}

// ReadColumns of quantize/outliers.h.
absl::Status ReadFirstColumns(const TensorSource& source, const CanonicalTensor& tensor,
                              int64_t first_row, int64_t n_rows, int64_t n_cols, float* out) {
  const DType dtype = source.tensors()[tensor.source].dtype;
  if (!Info(dtype).decodable) return NotDecodable(tensor, dtype);
  // Whole rows: few large reads cost less than many small ones.
  const int64_t cols = tensor.shape.back();
  const auto bytes_of = [&](int64_t n) {
    return n / Info(dtype).block_elements * Info(dtype).block_bytes;
  };
  const int64_t step = std::max<int64_t>(1, (256 << 10) / bytes_of(cols));
  std::vector<uint8_t> raw(std::min(step, n_rows) * bytes_of(cols));
  for (int64_t first = 0; first < n_rows; first += step) {
    const int64_t n = std::min(step, n_rows - first);
    absl::Status status = source.Read(tensor.source, (first_row + first) * cols, n * cols,
                                      absl::MakeSpan(raw.data(), bytes_of(n * cols)));
    if (!status.ok()) return status;
    for (int64_t r = 0; r < n; ++r) {
      DecodeToFloat(dtype, absl::MakeConstSpan(raw.data() + r * bytes_of(cols), bytes_of(n_cols)),
                    absl::MakeSpan(out + (first + r) * n_cols, n_cols));
    }
  }
  return absl::OkStatus();
}

// The encoding of each tensor, in their order.
absl::StatusOr<std::vector<Encoding>> EncodingsOf(const ModelPlan& model,
                                                  const TensorSource& source,
                                                  const Scheme* scheme) {
  std::vector<SchemeTensor> tensors;
  for (const CanonicalTensor& tensor : model.tensors) {
    absl::StatusOr<TensorName> name = ParseTensorName(tensor.name);
    if (!name.ok()) return name.status();
    const bool vector = tensor.shape.size() == 1;
    tensors.push_back({*name, vector ? 1 : tensor.shape[0], tensor.shape.back()});
  }
  if (scheme != nullptr) {
    const int n_layers = static_cast<int>(model.config.n_layers());
    std::vector<double> sensitivities;
    if (scheme->mixed) {
      const auto read = [&](size_t index, int64_t first_row, int64_t n_rows, int64_t n_cols,
                            float* out) {
        return ReadFirstColumns(source, model.tensors[index], first_row, n_rows, n_cols, out);
      };
      const absl::StatusOr<std::vector<double>> outliers = HiddenOutliers(tensors, n_layers, read);
      if (!outliers.ok()) return outliers.status();
      sensitivities = PriorSensitivities(tensors, n_layers, *outliers);
    }
    return ChooseEncodings(*scheme, tensors, n_layers, model.config.tied_embeddings(),
                           sensitivities);
  }
  std::vector<Encoding> encodings;
  for (const CanonicalTensor& tensor : model.tensors) {
    encodings.push_back(tensor.shape.size() == 1
                            ? Encoding::kF32
                            : SourceEncoding(source.tensors()[tensor.source].dtype));
  }
  return encodings;
}

// Whether most weights of the layers are codes that `source` carries over bit for bit in 4 bits:
// another 4-bit encoding would only add its own error.
bool IsFourBitAlready(const ModelPlan& model, const TensorSource& source) {
  int64_t all = 0, carried = 0;
  for (const CanonicalTensor& tensor : model.tensors) {
    if (tensor.shape.size() != 2 || !absl::StartsWith(tensor.name, "layers.")) continue;
    const int64_t n = tensor.shape[0] * tensor.shape[1];
    all += n;
    const DType dtype = source.tensors()[tensor.source].dtype;
    if (dtype == DType::kGgmlQ4_0 || dtype == DType::kGgmlQ4_1) carried += n;
  }
  return 2 * carried > all;
}

absl::Status AddTensor(const CanonicalTensor& tensor, DType dtype, Encoding encoding,
                       pb::Manifest* manifest, TensorPlan* plan) {
  if (!Info(dtype).decodable) {
    return NotDecodable(tensor, dtype);
  }
  pb::TensorEntry* entry = manifest->add_tensors();
  entry->set_name(tensor.name);
  for (const int64_t d : tensor.shape) entry->add_shape(d);
  // Rows of an embedding that is no output matrix are only gathered; a row that is alone then
  // touches one page or two.
  const bool gathered = tensor.name == "embedding" && !manifest->config().tied_embeddings();
  entry->set_layout(tensor.shape.size() == 1 || gathered ? pb::LAYOUT_ROWS : pb::LAYOUT_PANELS);
  SetEncoding(encoding, CodebookFor(encoding), manifest, entry);
  plan->tensor = tensor;
  plan->dtype = dtype;
  const bool blocks =
      dtype == DType::kGgmlQ4_0 || dtype == DType::kGgmlQ4_1 || dtype == DType::kGgmlQ8_0;
  plan->carried = blocks && encoding == SourceEncoding(dtype);
  return absl::OkStatus();
}

// Reads rows of one tensor of the checkpoint, in canonical order. Thread-safe.
class RowReader {
 public:
  RowReader(const TensorSource& source, const TensorPlan& plan)
      : source_(source),
        plan_(plan),
        cols_(plan.tensor.shape.back()),
        row_bytes_(RawBytes(plan.dtype, cols_)) {}

  // out: n rows of row_bytes(), as stored in the checkpoint.
  absl::Status ReadRaw(int64_t first, int64_t n, uint8_t* out) const {
    if (plan_.tensor.interleaved_heads == 0) {
      return source_.Read(plan_.tensor.source, first * cols_, n * cols_,
                          absl::MakeSpan(out, n * row_bytes_));
    }
    // What is permuted: rows of a matrix, elements of a bias.
    const int64_t unit = plan_.tensor.shape.size() == 1 ? 1 : cols_;
    const int64_t unit_bytes = RawBytes(plan_.dtype, unit);
    first = first * cols_ / unit;
    n = n * cols_ / unit;
    for (int64_t r = 0; r < n; ++r) {
      absl::Status status =
          source_.Read(plan_.tensor.source, SourceRow(plan_.tensor, first + r) * unit, unit,
                       absl::MakeSpan(out + r * unit_bytes, unit_bytes));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status ReadFloats(int64_t first, int64_t n, float* out) const {
    // A few rows at a time: the raw bytes are decoded while they are in the cache.
    const int64_t step = std::max<int64_t>(1, (256 << 10) / row_bytes_);
    std::vector<uint8_t> raw(std::min(step, n) * row_bytes_);
    for (int64_t r = 0; r < n; r += step) {
      const int64_t rows = std::min(step, n - r);
      absl::Status status = ReadRaw(first + r, rows, raw.data());
      if (!status.ok()) return status;
      DecodeToFloat(plan_.dtype, absl::MakeConstSpan(raw.data(), rows * row_bytes_),
                    absl::MakeSpan(out + r * cols_, rows * cols_));
    }
    return absl::OkStatus();
  }

 private:
  static int64_t RawBytes(DType dtype, int64_t n) {
    return n / Info(dtype).block_elements * Info(dtype).block_bytes;
  }

  const TensorSource& source_;
  const TensorPlan& plan_;
  const int64_t cols_, row_bytes_;
};

}  // namespace

absl::StatusOr<std::optional<Scheme>> ConversionScheme(const ConvertOptions& options) {
  if (options.type == "source" && options.target_bits != 0) {
    return absl::InvalidArgumentError(
        "--target-bits goes with q4 or q4_hq, which mix encodings; source keeps each tensor's own");
  }
  if (options.type == "source" || (options.type.empty() && options.target_bits == 0))
    return std::optional<Scheme>();
  const std::string type = options.type.empty() ? "q4" : options.type;
  const absl::Status known = FindScheme(type).status();
  if (!known.ok()) return absl::InvalidArgumentError(absl::StrCat(known.message(), ", source"));
  absl::StatusOr<Scheme> scheme = SchemeFor(type, options.target_bits);
  if (!scheme.ok()) return scheme.status();
  return std::optional<Scheme>(*std::move(scheme));
}

absl::StatusOr<ConvertPlan> PlanConversion(const ConvertOptions& options) {
  ConvertPlan plan;
  plan.path = options.source;
  const absl::StatusOr<std::optional<Scheme>> asked = ConversionScheme(options);
  if (!asked.ok()) return asked.status();
  std::optional<Scheme> scheme = *asked;
  absl::StatusOr<std::unique_ptr<TensorSource>> opened = OpenCheckpoint(options.source);
  if (!opened.ok()) return opened.status();
  const bool carry = !scheme.has_value() || scheme->layers == Encoding::kQ4_0;
  absl::StatusOr<UnpackedSource> source =
      UnpackQuantized(*std::move(opened), options.source, options.config_file, carry);
  if (!source.ok()) return source.status();
  if (!source->obstacle.empty()) {
    return absl::UnimplementedError(
        absl::StrCat(options.source, ": ", source->obstacle,
                     "; it cannot be carried over as it is; --type q4 or q8 encodes its weights "
                     "anew"));
  }
  plan.source = std::move(source->source);
  absl::StatusOr<ModelPlan> model = PlanModel(
      *plan.source, {options.source, options.config_file, options.root, source->unpacked});
  if (!model.ok()) return model.status();
  if (options.type.empty() && !scheme.has_value() && !IsFourBitAlready(*model, *plan.source))
    scheme = *SchemeFor("q4", 0);
  if (options.tokenizer != "none") {
    absl::StatusOr<pb::Tokenizer> tokenizer = FindTokenizer(options, *plan.source);
    if (!tokenizer.ok()) return tokenizer.status();
    const absl::StatusOr<std::vector<std::string>> without_rows =
        LeaveOutTokensFrom(model->config.vocab_size(), &*tokenizer);
    if (!without_rows.ok()) {
      return absl::Status(without_rows.status().code(),
                          absl::StrCat(options.source, ": ", without_rows.status().message()));
    }
    for (const std::string& token : *without_rows)
      plan.left_out.emplace_back(token, "a token without a row of the embedding");
    plan.tokenizer = tokenizer->SerializeAsString();
    // What no run could use is refused before anything is written.
    if (absl::Status usable = Tokenizer::Create(*std::move(tokenizer)).status(); !usable.ok()) {
      return absl::Status(usable.code(), absl::StrCat(options.source, ": ", usable.message(),
                                                      "; to go without text: --tokenizer none"));
    }
  }
  absl::StatusOr<std::vector<Encoding>> encodings =
      EncodingsOf(*model, *plan.source, scheme.has_value() ? &*scheme : nullptr);
  if (!encodings.ok()) return encodings.status();
  plan.left_out.insert(plan.left_out.begin(), model->left_out.begin(), model->left_out.end());
  *plan.manifest.mutable_config() = std::move(model->config);
  plan.manifest.set_scheme(scheme.has_value() ? scheme->name : "source");
  plan.manifest.mutable_source()->set_converter(absl::StrCat("quire ", kVersion));
  for (const auto& [name, bytes] : plan.source->files()) {
    pb::SourceFile* file = plan.manifest.mutable_source()->add_files();
    file->set_name(ReplaceInvalidUtf8(name));
    file->set_bytes(bytes);
    plan.source_bytes += bytes;
  }
  for (size_t i = 0; i < model->tensors.size(); ++i) {
    const CanonicalTensor& tensor = model->tensors[i];
    plan.tensors.emplace_back();
    absl::Status status = AddTensor(tensor, plan.source->tensors()[tensor.source].dtype,
                                    (*encodings)[i], &plan.manifest, &plan.tensors.back());
    if (!status.ok())
      return absl::Status(status.code(), absl::StrCat(options.source, ": ", status.message()));
  }
  double read_bytes = 0;
  for (const TensorPlan& tensor : plan.tensors)
    read_bytes += static_cast<double>(plan.source->tensors()[tensor.tensor.source].bytes());
  if (absl::Status s = CheckProportion(*plan.source, read_bytes, options.source); !s.ok()) return s;
  absl::StatusOr<int64_t> file_bytes =
      PlanFile(static_cast<int64_t>(plan.tokenizer.size()), &plan.manifest);
  if (!file_bytes.ok()) return file_bytes.status();
  plan.file_bytes = *file_bytes;
  return plan;
}

absl::StatusOr<std::vector<TensorReport>> Convert(
    const ConvertPlan& plan, const std::string& output, bool overwrite, int64_t memory_budget,
    ThreadPool& pool, absl::FunctionRef<void(int64_t done_bytes)> progress,
    const EncodeNamed& encode) {
  absl::StatusOr<std::unique_ptr<FileWriter>> writer =
      FileWriter::Create(output, plan.manifest, plan.tokenizer, overwrite);
  if (!writer.ok()) return writer.status();
  const TensorSink sink{pool,
                        [&](absl::Span<const uint8_t> bytes) { return (*writer)->Append(bytes); },
                        memory_budget};
  std::vector<TensorReport> reports;
  int64_t done_bytes = 0;
  // The next tensor's bytes are checked (which also brings them into the page cache) while one is
  // encoded.
  constexpr auto kPolicy =
      std::launch::async | std::launch::deferred;  // deferred where no thread is to be had
  const auto check = [&](size_t i) { return plan.source->Verify(plan.tensors[i].tensor.source); };
  std::future<absl::Status> checked = std::async(kPolicy, check, 0);
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const TensorPlan& tensor = plan.tensors[i];
    const pb::TensorEntry& entry = (*writer)->manifest().tensors(static_cast<int>(i));
    const SourceTensor& from = plan.source->tensors()[tensor.tensor.source];
    absl::Status status = checked.get();
    if (!status.ok()) return status;
    if (i + 1 < plan.tensors.size()) checked = std::async(kPolicy, check, i + 1);
    const Geometry geometry = GeometryOf(entry);
    const RowReader reader(*plan.source, tensor);
    EncodingError error;
    if (tensor.carried) {
      status = RepackTensor(
          geometry,
          [&](int64_t first, int64_t n, uint8_t* out) { return reader.ReadRaw(first, n, out); },
          sink);
    } else {
      absl::StatusOr<EncodingError> encoded = encode(
          tensor.tensor.name, geometry, CodebookOf(plan.manifest, entry),
          [&](int64_t first, int64_t n, float* out) { return reader.ReadFloats(first, n, out); },
          sink);
      status = encoded.status();
      if (encoded.ok()) error = *encoded;
    }
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat(plan.path, ": tensor \"", from.name,
                                                      "\": ", status.message()));
    }
    reports.push_back({tensor.tensor.name, error.squared_norm > 0
                                               ? std::sqrt(error.squared_error / error.squared_norm)
                                               : 0.0});
    done_bytes += from.bytes();
    progress(done_bytes);
  }
  absl::Status status = (*writer)->Finish();
  if (!status.ok()) return status;
  return reports;
}

}  // namespace quire
