// What a .quire file holds, for people and programs.
#ifndef QUIRE_FORMAT_INSPECT_H_
#define QUIRE_FORMAT_INSPECT_H_

#include <ostream>
#include <string>

#include "absl/status/status.h"

namespace quire {

// Prints configuration, sizes and (for people only where `tensors`) the tensor list. Touches no
// weight.
absl::Status InspectModelFile(const std::string& path, bool tensors, bool json, std::ostream& out);

}  // namespace quire

#endif  // QUIRE_FORMAT_INSPECT_H_
