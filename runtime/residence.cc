#include "runtime/residence.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "format/command_line.h"

namespace quire {
namespace {

// What tensors are aligned to in the file.
constexpr int64_t kSlotAlign = 16384;

// Layers in an order of which every beginning is spread evenly: by the multiples of the golden
// ratio, modulo 1.
std::vector<int> SpreadLayers(int n) {
  std::vector<double> key(n);
  for (int l = 0; l < n; ++l) key[l] = std::fmod(l * 0.6180339887498949, 1.0);
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int a, int b) { return key[a] < key[b]; });
  return order;
}

}  // namespace

int64_t SlotBytes(const Matrix& matrix) { return RoundUp(matrix.geometry.bytes(), kSlotAlign); }

Residence KeepAll(const Model& model) {
  Residence all;
  all.kept_bytes = model.decode_bytes();
  return all;
}

Residence PlanResidence(const Model& model, int64_t room) {
  const Residence all = KeepAll(model);
  if (all.bytes() <= room) return all;
  const std::vector<Layer>& layers = model.layers();
  const int n_layers = static_cast<int>(layers.size());
  Residence plan = all;
  plan.streamed.resize(n_layers);
  std::vector<std::array<int64_t, kLayerSteps>> slots(n_layers);
  // The same matrix of one layer after another, from the back of the layers: so the steps of all
  // layers need slots of nearly one size.
  const std::vector<int> order = SpreadLayers(n_layers);
  for (int m = static_cast<int>(kLayerMatrices.size()) - 1; m >= 0; --m) {
    for (auto l = order.rbegin(); l != order.rend(); ++l) {
      const Matrix& matrix = layers[*l].*kLayerMatrices[m];
      plan.streamed[*l][m] = true;
      plan.streamed_matrices += 1;
      plan.streamed_bytes += matrix.geometry.bytes();
      plan.kept_bytes -= matrix.geometry.bytes();
      int64_t& slot = slots[*l][static_cast<int>(kStepOfMatrix[m])];
      slot += SlotBytes(matrix);
      plan.slot_bytes = std::max(plan.slot_bytes, slot);
      if (plan.bytes() <= room) return plan;
    }
  }
  return plan;
}

std::string Describe(const Residence& residence) {
  const int64_t all = residence.kept_bytes + residence.streamed_bytes;
  if (residence.whole()) return absl::StrCat(HumanBytes(all), " of weights, all mapped");
  return absl::StrCat(HumanBytes(all), " of weights: ", HumanBytes(residence.kept_bytes),
                      " stay in memory, ", HumanBytes(residence.streamed_bytes), " (",
                      residence.streamed_matrices, " of ",
                      residence.streamed.size() * kLayerMatrices.size(),
                      " matrices of the layers) are read from disk for each token, through ",
                      HumanBytes(2 * residence.slot_bytes), " of buffers");
}

}  // namespace quire
