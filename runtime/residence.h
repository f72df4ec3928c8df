// Which of a model's weights stay in memory, and which are read from disk for every token.
#ifndef QUIRE_RUNTIME_RESIDENCE_H_
#define QUIRE_RUNTIME_RESIDENCE_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/model.h"

namespace quire {

// Only the layers' matrices are ever streamed: vectors are small, a token needs one row of the
// embedding, and the output matrix is one piece that would not fit into a slot.
struct Residence {
  std::vector<std::array<bool, kLayerMatrices.size()>> streamed;  // [layer]; empty: none
  int64_t kept_bytes = 0;      // of weights that stay mapped, as far as a token reads them
  int64_t streamed_bytes = 0;  // read from disk for each token, or each batch of a prompt
  int64_t streamed_matrices = 0;
  int64_t slot_bytes = 0;  // the most that is streamed for one step of a layer

  bool whole() const { return streamed_bytes == 0; }
  // What it takes of memory in all: two slots, one that is read while the other is computed with.
  int64_t bytes() const { return kept_bytes + 2 * slot_bytes; }
};

// What a matrix takes in the slot of its step, where one follows another: as in the file, up to
// the next tensor.
int64_t SlotBytes(const Matrix& matrix);

// Everything stays.
Residence KeepAll(const Model& model);

// What to keep so that bytes() <= room: as much as possible, of every layer nearly the same share,
// since reading goes on while layers are computed with. More room keeps a superset. All matrices of
// the layers are streamed where even that takes more.
Residence PlanResidence(const Model& model, int64_t room);

// "3.96 GB of weights, 2.20 GB stay in memory; 1.62 GB (66 of 224 matrices) are read ..."
std::string Describe(const Residence& residence);

}  // namespace quire

#endif  // QUIRE_RUNTIME_RESIDENCE_H_
