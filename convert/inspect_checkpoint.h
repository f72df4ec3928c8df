// `quire inspect` of a checkpoint: what its containers hold, whatever the architecture.
#ifndef QUIRE_CONVERT_INSPECT_CHECKPOINT_H_
#define QUIRE_CONVERT_INSPECT_CHECKPOINT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "convert/tensor_source.h"

namespace quire {

// XXH3-64 of the tensor's elements in logical order, contiguous, little-endian, after the
// container's own integrity check. Reads through a buffer of 4 MiB.
absl::StatusOr<uint64_t> ChecksumTensor(const TensorSource& source, int index);

// ChecksumTensor of each, shared ones read once; nullopt for block types that are only listed.
// Errors of CheckProportion.
absl::StatusOr<std::vector<std::optional<uint64_t>>> ChecksumTensors(const TensorSource& source,
                                                                     const std::string& place);

// Prints one JSON object (design: container, files, tensors [{name, shape, dtype, xxh3}], metadata)
// or, for people, a summary and with `tensors` a line for each tensor. `checksums` reads every
// tensor. Returns the exit code; a failure is one line on stderr, with nothing on stdout.
int InspectCheckpoint(const std::string& path, bool tensors, bool checksums, bool json);

}  // namespace quire

#endif  // QUIRE_CONVERT_INSPECT_CHECKPOINT_H_
