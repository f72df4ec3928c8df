// Where the forward pass gets its layers: from the mapping, or, where memory is short, in part from
// a stream.
#ifndef QUIRE_RUNTIME_LAYER_FEED_H_
#define QUIRE_RUNTIME_LAYER_FEED_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/footprint/residency.h"
#include "runtime/memory_room.h"
#include "runtime/model.h"
#include "runtime/read_ahead.h"
#include "runtime/residence.h"
#include "runtime/weight_stream.h"

namespace quire {

// While all weights fit into memory, a layer is the mapped one: the first batch reads ahead, and
// from then on nothing else happens than a look at the limits once a second. Where they do not, or
// no longer, some matrices of each layer are read ahead into buffers, step by step; the others stay
// in the page cache, from which nothing pushes them out. Not thread-safe.
class LayerFeed {
 public:
  // forced_bytes: memory that the weights may take, buffers included; 0: the limits decide.
  // growth_bytes: memory that will be touched beside the weights before long. `model` must outlive
  // the feed. Reads no weight.
  LayerFeed(const Model& model, int64_t forced_bytes, int64_t growth_bytes);

  // Before the layers of a batch, and after its last. growth_bytes: as above, for this batch and
  // some more. What WeightStream::Start returns.
  absl::Status BeginBatch(int64_t tokens, int64_t growth_bytes);
  // Every step of every layer, in order; the matrices of that step are valid until Release.
  // DataLoss where weights could not be read: what is computed of this batch is lost, and
  // BeginBatch tries anew.
  absl::StatusOr<const Layer*> Acquire(int64_t layer, LayerStep step);
  void Release();

  const Residence& residence() const { return residence_; }
  // One line for people, empty where nothing is streamed: what stays, what is read, and why.
  std::string Describe() const;
  // How often the limits or what others use have changed `residence` since the beginning.
  int64_t changes() const { return changes_; }
  int64_t ring_bytes() const { return stream_ == nullptr ? 0 : stream_->ring_bytes(); }
  int64_t ring_resident_bytes() const {
    return stream_ == nullptr ? 0 : stream_->ring_resident_bytes();
  }

 private:
  void Look(int64_t growth_bytes);
  int64_t MissingBytes(const Residency& residency) const;
  void Adopt(Residence residence);
  void StartReadAhead();
  absl::Status StartStream();

  const Model& model_;
  const int64_t forced_bytes_;
  Residence residence_;
  std::string limit_;
  int64_t changes_ = -1;
  int64_t looked_ns_ = 0, tokens_since_look_ = 0;
  int64_t cached_bytes_ = 0;               // of the file in the page cache, at the last close look
  int64_t judged_bytes_ = -1;              // for weights, likewise
  int idle_looks_ = 0;                     // since then
  bool begun_ = false;                     // whether there was a batch
  std::unique_ptr<ReadAhead> read_ahead_;  // in the first batch: of each layer, then of the output
  bool last_step_ = false;                 // whether the acquired step is the last of a batch
  std::unique_ptr<WeightStream> stream_;
  Layer layer_{};  // the acquired one, where parts of it are in a slot
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_LAYER_FEED_H_
