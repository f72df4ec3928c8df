#include "convert/strided_read.h"

#include <algorithm>
#include <cstring>

namespace quire {
namespace {

// What one read may take in, and how far apart pieces may lie to be worth one read: copying a page
// costs about as much as a system call.
constexpr int64_t kWindowBytes = 1 << 20;
constexpr int64_t kGapBytes = 4096;

using ReadFn = absl::FunctionRef<absl::Status(int64_t, absl::Span<uint8_t>)>;

// A dimension of the part that is gathered: `size` steps of `from` bytes in the storage and `to`
// bytes in the output.
struct Loop {
  int64_t size;
  int64_t from;
  int64_t to;
};

void Copy(const uint8_t* from, uint8_t* to, int element_bytes) {
  switch (element_bytes) {  // constant sizes become moves
    case 1:
      *to = *from;
      break;
    case 2:
      std::memcpy(to, from, 2);
      break;
    case 4:
      std::memcpy(to, from, 4);
      break;
    case 8:
      std::memcpy(to, from, 8);
      break;
    default:
      std::memcpy(to, from, element_bytes);
  }
}

// Gathers one box of the view. `loops`: outermost in the storage first.
class Gather {
 public:
  Gather(std::vector<Loop> loops, int element_bytes, ReadFn read)
      : loops_(std::move(loops)), element_bytes_(element_bytes), read_(read) {
    // spans_[d]: bytes of the storage that loops d and inward reach over.
    spans_.assign(loops_.size() + 1, element_bytes);
    for (size_t d = loops_.size(); d-- > 0;) {
      spans_[d] = spans_[d + 1] + (loops_[d].size - 1) * loops_[d].from;
    }
    // Loops from joined_ on are read window by window.
    joined_ = loops_.size();
    while (joined_ > 0 && spans_[joined_] <= kWindowBytes &&
           loops_[joined_ - 1].from - spans_[joined_] <= kGapBytes) {
      --joined_;
    }
  }

  absl::Status Run(int64_t from, uint8_t* to) { return Outer(0, from, to); }

 private:
  absl::Status Outer(size_t d, int64_t from, uint8_t* to) {
    if (d == joined_) return Windows(from, to);
    for (int64_t i = 0; i < loops_[d].size; ++i) {
      if (auto s = Outer(d + 1, from + i * loops_[d].from, to + i * loops_[d].to); !s.ok())
        return s;
    }
    return absl::OkStatus();
  }

  // The joined loops: as many steps of the outermost at once as a window holds.
  absl::Status Windows(int64_t from, uint8_t* to) {
    const bool scalar = joined_ == loops_.size();
    const Loop outer = scalar ? Loop{1, 0, 0} : loops_[joined_];
    const int64_t inner_bytes = scalar ? element_bytes_ : spans_[joined_ + 1];
    const int64_t steps = outer.from == 0
                              ? outer.size
                              : 1 + std::max<int64_t>(0, kWindowBytes - inner_bytes) / outer.from;
    for (int64_t i = 0; i < outer.size; i += steps) {
      const int64_t n = std::min(steps, outer.size - i);
      window_.resize((n - 1) * outer.from + inner_bytes);
      if (auto s = read_(from + i * outer.from, absl::MakeSpan(window_)); !s.ok()) return s;
      for (int64_t k = 0; k < n; ++k) {
        Scatter(scalar ? joined_ : joined_ + 1, window_.data() + k * outer.from,
                to + (i + k) * outer.to);
      }
    }
    return absl::OkStatus();
  }

  void Scatter(size_t d, const uint8_t* from, uint8_t* to) {
    if (d == loops_.size()) return Copy(from, to, element_bytes_);
    const bool innermost = d + 1 == loops_.size();
    if (innermost && loops_[d].from == element_bytes_ && loops_[d].to == element_bytes_) {
      std::memcpy(to, from, loops_[d].size * element_bytes_);
      return;
    }
    for (int64_t i = 0; i < loops_[d].size; ++i) {
      Scatter(d + 1, from + i * loops_[d].from, to + i * loops_[d].to);
    }
  }

  std::vector<Loop> loops_;
  const int element_bytes_;
  const ReadFn read_;
  std::vector<int64_t> spans_;
  size_t joined_;
  std::vector<uint8_t> window_;
};

}  // namespace

bool StridedView::IsContiguous() const {
  int64_t dense = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    if (shape[d] == 0) return true;
    if (shape[d] != 1 && strides[d] != dense) return false;
    dense *= shape[d];
  }
  return true;
}

int64_t StridedView::SpanBytes() const {
  int64_t last = 0;
  for (size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] == 0) return 0;
    last += (shape[d] - 1) * strides[d];
  }
  return (last + 1) * element_bytes;
}

absl::Status ReadStrided(const StridedView& view, int64_t begin, int64_t count, ReadFn read,
                         absl::Span<uint8_t> out) {
  const int64_t e = view.element_bytes;
  if (count == 0) return absl::OkStatus();
  if (view.IsContiguous()) return read(view.offset_bytes + begin * e, out);

  // The range is cut into boxes: from a position whose last coordinates are 0, as many whole
  // subarrays as remain. Each coordinate is passed at most twice.
  const int rank = view.shape.size();
  uint8_t* to = out.data();
  while (count > 0) {
    // Coordinates of `begin`, and the outermost dimension from which on they are all 0.
    std::vector<int64_t> at(rank);
    int64_t rest = begin, inner = 1;  // inner: elements of a subarray of dimensions (free, rank)
    for (int d = rank; d-- > 0; rest /= view.shape[d]) at[d] = rest % view.shape[d];
    int free = rank - 1;
    while (free > 0 && at[free] == 0 && inner * view.shape[free] <= count) {
      inner *= view.shape[free--];
    }
    // Steps of dimension `free`, each over all of the dimensions inward.
    const int64_t steps = std::min(view.shape[free] - at[free], count / inner);
    int64_t from = view.offset_bytes;
    for (int d = 0; d < rank; ++d) from += at[d] * view.strides[d] * e;
    std::vector<Loop> loops;
    int64_t dense = e;
    for (int d = rank; d-- > free;) {
      const int64_t size = d == free ? steps : view.shape[d];
      if (size > 1) loops.push_back({size, view.strides[d] * e, dense});
      dense *= size;
    }
    std::sort(loops.begin(), loops.end(),
              [](const Loop& a, const Loop& b) { return a.from > b.from; });
    if (auto s = Gather(std::move(loops), e, read).Run(from, to); !s.ok()) return s;
    begin += steps * inner;
    count -= steps * inner;
    to += steps * inner * e;
  }
  return absl::OkStatus();
}

}  // namespace quire
