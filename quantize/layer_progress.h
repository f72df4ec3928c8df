// "quantize: layer 3 of 30, 45 s left" on stderr, where that is a terminal.
#ifndef QUIRE_QUANTIZE_LAYER_PROGRESS_H_
#define QUIRE_QUANTIZE_LAYER_PROGRESS_H_

#include <cstdint>

namespace quire {

class LayerProgress {
 public:
  LayerProgress(const char* what, int64_t layers);
  ~LayerProgress();  // clears the line
  // part: 0 to 1. What the first call says was done before.
  void Update(double part);

 private:
  const char* const what_;
  const int64_t layers_;
  const bool terminal_;
  const int64_t start_ns_;
  double first_ = -1;
};

}  // namespace quire

#endif  // QUIRE_QUANTIZE_LAYER_PROGRESS_H_
