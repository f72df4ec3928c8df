#include "quantize/layer_progress.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "absl/strings/str_format.h"
#include "format/command_line.h"

namespace quire {

LayerProgress::LayerProgress(const char* what, int64_t layers)
    : what_(what),
      layers_(layers),
      terminal_(isatty(STDERR_FILENO)),
      start_ns_(MonotonicNanoseconds()) {}

LayerProgress::~LayerProgress() {
  if (terminal_) std::cerr << "\r\x1b[K" << std::flush;
}

void LayerProgress::Update(double part) {
  if (first_ < 0) first_ = part;
  if (!terminal_) return;
  const double seconds = static_cast<double>(MonotonicNanoseconds() - start_ns_) * 1e-9;
  const int64_t layer = std::min(layers_, static_cast<int64_t>(part * layers_) + 1);
  std::cerr << absl::StreamFormat("\r\x1b[K%s: layer %d of %d", what_, layer, layers_);
  if (part > first_) {
    std::cerr << absl::StreamFormat(", %.0f s left", seconds / (part - first_) * (1 - part));
  }
  std::cerr << std::flush;
}

}  // namespace quire
