#include "tests/forward/random_model.h"

#include <cmath>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "format/half.h"
#include "format/manifest_check.h"
#include "format/model_file.h"
#include "format/writer.h"
#include "quantize/encode.h"

namespace quire {
namespace {

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << "random model: " << status << "\n";
  std::abort();
}

void AddTensor(pb::Manifest* manifest, const std::string& name, std::vector<int64_t> shape,
               Encoding encoding, Layout layout) {
  pb::TensorEntry* entry = manifest->add_tensors();
  entry->set_name(name);
  for (const int64_t d : shape) entry->add_shape(d);
  entry->set_layout(static_cast<pb::LayoutCode>(layout));
  SetEncoding(encoding, CodebookFor(encoding), manifest, entry);
}

using Vector = std::vector<double>;

// What integer weights multiply: groups of 32 rounded to 127 steps of their largest element.
Vector Rounded(Vector x) {
  for (size_t group = 0; group < x.size(); group += kGroupColumns) {
    const size_t end = std::min(group + kGroupColumns, x.size());
    double largest = 0;
    for (size_t i = group; i < end; ++i) largest = std::max(largest, std::abs(x[i]));
    for (size_t i = group; i < end && largest > 0; ++i) {
      x[i] = std::nearbyint(x[i] * 127 / largest) * largest / 127;
    }
  }
  return x;
}

// What the cache keeps.
Vector RoundedToHalf(Vector x) {
  for (double& v : x) v = HalfToFloat(FloatToHalf(static_cast<float>(v)));
  return x;
}

// A tensor as numbers: rows x cols.
struct Numbers {
  int64_t rows, cols;
  Vector values;
  bool integer;

  Vector Times(Vector x) const {
    if (integer) x = Rounded(std::move(x));
    Vector y(rows);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) y[r] += values[r * cols + c] * x[c];
    }
    return y;
  }
};

Numbers Decode(const ModelFile& file, const std::string& name) {
  const TensorView* view = file.Find(name);
  if (view == nullptr) return {0, 0, {}, false};
  const Geometry& g = view->geometry;
  Numbers numbers{g.rows, g.cols, {}, Info(g.encoding).scale_bytes != 0};
  std::vector<float> unit(g.unit_rows() * g.padded_cols());
  for (int64_t r = 0; r < g.rows; ++r) {
    if (r % g.unit_rows() == 0)
      DecodeUnit(g, view->codebook, view->data, r / g.unit_rows(), unit.data());
    const float* row = unit.data() + r % g.unit_rows() * g.padded_cols();
    numbers.values.insert(numbers.values.end(), row, row + g.cols);
  }
  return numbers;
}

Vector RmsNorm(const Vector& x, const Numbers& weight, double eps) {
  double square = 0;
  for (const double v : x) square += v * v;
  const double scale = 1 / std::sqrt(square / static_cast<double>(x.size()) + eps);
  Vector y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * scale * weight.values[i];
  return y;
}

// Radians per position of pair i.
double Frequency(const pb::ModelConfig& c, int i) {
  const double f = std::pow(c.rope_theta(), -2.0 * i / c.head_dim());
  const pb::RopeScaling& s = c.rope_scaling();
  if (s.kind() == pb::RopeScaling::LINEAR) return f / s.factor();
  if (s.kind() != pb::RopeScaling::LLAMA3) return f;
  const double wavelength = 2 * std::acos(-1.0) / f;
  const double turns = s.original_context_tokens() / wavelength;
  const double kept = std::min(
      1.0,
      std::max(0.0, (turns - s.low_freq_factor()) / (s.high_freq_factor() - s.low_freq_factor())));
  return kept * f + (1 - kept) * f / s.factor();
}

void Rotate(const pb::ModelConfig& c, int64_t position, Vector* heads) {
  const int64_t d = c.head_dim();
  for (size_t head = 0; head < heads->size(); head += d) {
    for (int64_t i = 0; i < d / 2; ++i) {
      const double angle = static_cast<double>(position) * Frequency(c, i);
      double &a = (*heads)[head + i], &b = (*heads)[head + i + d / 2];
      const double turned = a * std::cos(angle) - b * std::sin(angle);
      b = b * std::cos(angle) + a * std::sin(angle);
      a = turned;
    }
  }
}

void Add(Vector* x, const Vector& y) {
  for (size_t i = 0; i < y.size(); ++i) (*x)[i] += y[i];
}

}  // namespace

pb::ModelConfig SmallConfig() {
  pb::ModelConfig c;
  c.set_architecture("llama");
  c.set_n_layers(2);
  c.set_n_heads(6);
  c.set_n_kv_heads(2);
  c.set_head_dim(8);
  c.set_hidden_dim(40);
  c.set_ffn_dim(172);
  c.set_vocab_size(99);
  c.set_context_tokens(512);
  c.set_norm_eps(1e-5f);
  c.set_rope_theta(10000);
  return c;
}

void WriteRandomModel(const std::string& path, const pb::ModelConfig& config, Encoding encoding,
                      Encoding output, uint64_t seed, const pb::ModelConfig* claimed) {
  pb::Manifest manifest;
  *manifest.mutable_config() = claimed == nullptr ? config : *claimed;
  manifest.mutable_source()->set_converter("quire test");
  const int64_t hidden = config.hidden_dim(), ffn = config.ffn_dim(), vocab = config.vocab_size();
  const int64_t q_dim = int64_t{config.n_heads()} * config.head_dim();
  const int64_t kv_dim = int64_t{config.n_kv_heads()} * config.head_dim();
  const auto vector = [&](const std::string& name, int64_t n) {
    AddTensor(&manifest, name, {n}, Encoding::kF32, Layout::kRows);
  };
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols) {
    AddTensor(&manifest, name, {rows, cols}, encoding, Layout::kPanels);
  };
  const bool tied = config.tied_embeddings();
  AddTensor(&manifest, "embedding", {vocab, hidden}, output,
            tied ? Layout::kPanels : Layout::kRows);
  for (uint32_t l = 0; l < config.n_layers(); ++l) {
    const std::string layer = absl::StrCat("layers.", l, ".");
    vector(layer + "attn_norm", hidden);
    matrix(layer + "wq", q_dim, hidden);
    matrix(layer + "wk", kv_dim, hidden);
    matrix(layer + "wv", kv_dim, hidden);
    if (config.architecture() == "qwen2") {
      vector(layer + "bq", q_dim);
      vector(layer + "bk", kv_dim);
      vector(layer + "bv", kv_dim);
    }
    matrix(layer + "wo", hidden, q_dim);
    vector(layer + "ffn_norm", hidden);
    matrix(layer + "w_gate", ffn, hidden);
    matrix(layer + "w_up", ffn, hidden);
    matrix(layer + "w_down", hidden, ffn);
  }
  vector("norm", hidden);
  if (!tied) AddTensor(&manifest, "output", {vocab, hidden}, output, Layout::kPanels);

  absl::StatusOr<std::unique_ptr<FileWriter>> writer =
      FileWriter::Create(path, manifest, "", /*overwrite=*/true);
  Check(writer.status());
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  for (const pb::TensorEntry& entry : (*writer)->manifest().tensors()) {
    const Geometry g = GeometryOf(entry);
    const bool norm = absl::string_view(entry.name()).find("norm") != absl::string_view::npos;
    // Activations keep a size of about one; queries and keys are large enough to attend sharply.
    const float spread = norm ? 0.2f : 1.5f / std::sqrt(static_cast<float>(g.cols));
    for (int64_t unit = 0; unit < g.units(); ++unit) {
      const int64_t rows = std::min(g.unit_rows(), g.rows - unit * g.unit_rows());
      std::vector<float> values(rows * g.cols);
      for (float& v : values) v = (norm ? 1.0f : 0.0f) + spread * normal(random);
      std::vector<uint8_t> bytes(g.unit_bytes());
      EncodingError error;
      EncodeUnit(g, CodebookFor(g.encoding), nullptr, values.data(), rows, bytes.data(), &error);
      Check((*writer)->Append(bytes));
    }
  }
  Check((*writer)->Finish());
}

std::vector<std::vector<double>> ReferenceLogits(const std::string& path,
                                                 absl::Span<const int32_t> tokens) {
  const absl::StatusOr<ModelFile> file = ModelFile::Open(path);
  Check(file.status());
  const pb::ModelConfig& c = file->config();
  const auto get = [&](const std::string& name) { return Decode(*file, name); };
  const Numbers embedding = get("embedding"), norm = get("norm");
  const Numbers output = c.tied_embeddings() ? embedding : get("output");
  const int64_t d = c.head_dim(), group = c.n_heads() / c.n_kv_heads();

  std::vector<Vector> xs;
  for (const int32_t id : tokens) {
    const auto row = embedding.values.begin() + id * embedding.cols;
    xs.emplace_back(row, row + embedding.cols);
  }
  for (uint32_t l = 0; l < c.n_layers(); ++l) {
    const std::string layer = absl::StrCat("layers.", l, ".");
    const Numbers attn_norm = get(layer + "attn_norm"), ffn_norm = get(layer + "ffn_norm");
    const Numbers wq = get(layer + "wq"), wk = get(layer + "wk"), wv = get(layer + "wv"),
                  wo = get(layer + "wo"), w_gate = get(layer + "w_gate"),
                  w_up = get(layer + "w_up"), w_down = get(layer + "w_down");
    std::vector<Vector> keys, values;
    for (size_t t = 0; t < xs.size(); ++t) {
      Vector& x = xs[t];
      const Vector h = RmsNorm(x, attn_norm, c.norm_eps());
      Vector q = wq.Times(h), k = wk.Times(h), v = wv.Times(h);
      Add(&q, get(layer + "bq").values);
      Add(&k, get(layer + "bk").values);
      Add(&v, get(layer + "bv").values);
      Rotate(c, t, &q);
      Rotate(c, t, &k);
      keys.push_back(RoundedToHalf(k));
      values.push_back(RoundedToHalf(v));
      Vector attention(q.size());
      const int64_t window = c.sliding_window();
      const size_t first = window > 0 && static_cast<int64_t>(t) >= window ? t + 1 - window : 0;
      for (int64_t head = 0; head < c.n_heads(); ++head) {
        const int64_t at = head * d, kv = head / group * d;
        Vector weights;
        double total = 0;
        for (size_t p = first; p <= t; ++p) {
          double score = 0;
          for (int64_t i = 0; i < d; ++i) score += q[at + i] * keys[p][kv + i];
          weights.push_back(std::exp(score / std::sqrt(static_cast<double>(d))));
          total += weights.back();
        }
        for (size_t p = first; p <= t; ++p) {
          for (int64_t i = 0; i < d; ++i) {
            attention[at + i] += weights[p - first] / total * values[p][kv + i];
          }
        }
      }
      Add(&x, wo.Times(attention));
      const Vector f = RmsNorm(x, ffn_norm, c.norm_eps());
      Vector gate = w_gate.Times(f);
      const Vector up = w_up.Times(f);
      for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
      Add(&x, w_down.Times(gate));
    }
  }
  std::vector<Vector> logits;
  for (const Vector& x : xs) logits.push_back(output.Times(RmsNorm(x, norm, c.norm_eps())));
  return logits;
}

std::vector<int32_t> SomeTokens(int n, const pb::ModelConfig& config) {
  std::mt19937 random(7);
  std::vector<int32_t> tokens(n);
  for (int32_t& id : tokens) id = static_cast<int32_t>(random() % config.vocab_size());
  return tokens;
}

}  // namespace quire
