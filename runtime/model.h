// A mapped .quire file as the forward pass sees it: per layer, pointers into the mapping. Nothing
// is copied.
#ifndef QUIRE_RUNTIME_MODEL_H_
#define QUIRE_RUNTIME_MODEL_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "format/model_file.h"

namespace quire {

// A matrix [rows, cols] in the PANELS layout. Borrows from the mapping.
struct Matrix {
  Geometry geometry;
  const int8_t* codebook;  // or null
  const uint8_t* data;

  int64_t rows() const { return geometry.rows; }
  // Whether it multiplies quantized activations.
  bool is_integer() const { return Info(geometry.encoding).scale_bytes != 0; }
};

// Vectors are f32. Biases are null where the architecture has none.
struct Layer {
  const float* attn_norm;     // [hidden_dim]
  Matrix wq;                  // [n_heads * head_dim, hidden_dim]
  Matrix wk, wv;              // [n_kv_heads * head_dim, hidden_dim]
  const float *bq, *bk, *bv;  // as many as the rows of wq, wk, wv
  Matrix wo;                  // [hidden_dim, n_heads * head_dim]
  const float* ffn_norm;      // [hidden_dim]
  Matrix w_gate, w_up;        // [ffn_dim, hidden_dim]
  Matrix w_down;              // [hidden_dim, ffn_dim]
};
inline constexpr std::array<Matrix Layer::*, 7> kLayerMatrices = {
    &Layer::wq, &Layer::wk, &Layer::wv, &Layer::wo, &Layer::w_gate, &Layer::w_up, &Layer::w_down};
// "layers.N." and one of these is a tensor's name.
inline constexpr std::array<const char*, kLayerMatrices.size()> kLayerMatrixNames = {
    "wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down"};
// A layer is computed in steps, each of which needs some of the matrices.
enum class LayerStep { kAttention, kGateUp, kDown };
inline constexpr int kLayerSteps = 3;
inline constexpr std::array<LayerStep, kLayerMatrices.size()> kStepOfMatrix = {
    LayerStep::kAttention, LayerStep::kAttention, LayerStep::kAttention, LayerStep::kAttention,
    LayerStep::kGateUp,    LayerStep::kGateUp,    LayerStep::kDown};

// Immutable after Open; safe to use from many threads. Move-only.
class Model {
 public:
  // Maps the file and finds every tensor that the architecture needs, of the right shape. Reads no
  // weight. What ModelFile::Open returns, and InvalidArgument for a tensor that is missing or of
  // the wrong shape or layout, Unimplemented for an architecture that no forward pass here knows.
  static absl::StatusOr<Model> Open(const std::string& path);

  const ModelFile& file() const { return file_; }
  const pb::ModelConfig& config() const { return file_.config(); }
  const TensorView& embedding() const {
    return *embedding_;
  }  // [vocab_size, hidden_dim], ROWS or PANELS
  const std::vector<Layer>& layers() const { return layers_; }
  const float* norm() const { return norm_; }       // [hidden_dim]
  const Matrix& output() const { return output_; }  // [vocab_size, hidden_dim]

  // Bytes of weights that generating one token reads: all matrices and vectors, one row of the
  // embedding.
  int64_t decode_bytes() const;

 private:
  explicit Model(ModelFile file) : file_(std::move(file)) {}
  absl::Status Bind();

  ModelFile file_;
  const TensorView* embedding_ = nullptr;
  std::vector<Layer> layers_;
  const float* norm_ = nullptr;
  Matrix output_{};
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_MODEL_H_
