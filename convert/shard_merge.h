// Checkpoints that are several files. The openers of folders are declared in tensor_source.h; this
// is what they share.
#ifndef QUIRE_CONVERT_SHARD_MERGE_H_
#define QUIRE_CONVERT_SHARD_MERGE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "convert/tensor_source.h"

namespace quire {

struct Shard {
  std::string name;  // of its file, for messages
  std::unique_ptr<TensorSource> source;
};

// The shards' tensors side by side, in the order of the shards. InvalidArgument where two shards
// hold a tensor of one name. Precondition: at least one shard.
absl::StatusOr<std::unique_ptr<TensorSource>> UniteShards(std::vector<Shard> shards);

// Tensor-parallel shards in the order of their numbers: each tensor is joined from its parts along
// the axis that the architecture table gives for Meta's names; what the table does not know, and
// the norms, are the same in all and taken from the first. The embedding is joined along its
// columns (Llama 1 and 2) or its rows (Llama 3), whichever makes it as wide as the norms.
// InvalidArgument where the shards do not fit together. Precondition: at least one shard.
absl::StatusOr<std::unique_ptr<TensorSource>> JoinTensorParallel(std::vector<Shard> shards);

}  // namespace quire

#endif  // QUIRE_CONVERT_SHARD_MERGE_H_
