#include "runtime/layer_feed.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "format/command_line.h"
#include "format/kernel_text.h"
#include "format/process_memory.h"

namespace quire {
namespace {

constexpr int64_t kLookEveryNs = 1'000'000'000;
constexpr int64_t kLookEveryTokens = 16;  // where weights are streamed: the KV cache grows
constexpr int kIdleLooks = 16;

// Files that are memory cannot be made to take less of it.
bool IsInMemory(const File& file) {
  constexpr long kTmpfs = 0x01021994, kRamfs = 0x858458f6;
  struct statfs info;
  return fstatfs(file.fd(), &info) == 0 && (info.f_type == kTmpfs || info.f_type == kRamfs);
}

int64_t OffsetOf(const Matrix& matrix, const MappedFile& file) { return matrix.data - file.data(); }

void Advise(const MappedFile& file, int64_t offset, int64_t bytes, int advice) {
  madvise(const_cast<uint8_t*>(file.data()) + offset, bytes, advice);
}

}  // namespace

LayerFeed::LayerFeed(const Model& model, int64_t forced_bytes, int64_t growth_bytes)
    : model_(model), forced_bytes_(forced_bytes), residence_(KeepAll(model)) {
  if (forced_bytes_ != 0) {
    limit_ = "--resident";
    Adopt(PlanResidence(model_, forced_bytes_));
  } else {
    Look(growth_bytes);
  }
  changes_ = 0;
}

// Compares what there is room for with what is kept, and adopts another residence where that does
// not fit any more or much more would.
void LayerFeed::Look(int64_t growth_bytes) {
  looked_ns_ = MonotonicNanoseconds();
  tokens_since_look_ = 0;
  const auto find_room = [&](int64_t cached) {
    MemoryRoom room = FindMemoryRoom("/proc/self", ReadKernelText, cached);
    room.bytes = std::max<int64_t>(0, room.bytes + ring_resident_bytes() - growth_bytes);
    return room;
  };
  if (residence_.whole() && residence_.bytes() <= find_room(0).bytes) return;
  // Nothing has changed since the last close look, which takes up to 100 ms of a large file: one is
  // enough now and then, to see whether anything was pushed out.
  MemoryRoom room = find_room(cached_bytes_);
  const bool changed = std::abs(room.bytes - judged_bytes_) > judged_bytes_ / 512;
  if (!changed && ++idle_looks_ < kIdleLooks) return;
  const MappedFile& file = model_.file().mapping();
  if (IsInMemory(file.file())) return;

  const absl::StatusOr<Residency> residency = Residency::Read(file);
  // Who may not know what is cached of the file at least knows what it maps itself.
  cached_bytes_ = residency.ok() ? residency->bytes()
                                 : std::min<int64_t>(file.size(), ReadProcessMemory().rss_file);
  room = find_room(cached_bytes_);
  judged_bytes_ = room.bytes;
  idle_looks_ = 0;
  Residence plan = PlanResidence(model_, room.bytes);
  // Where not even the buffers and the output matrix have room, the kernel's paging is left to do
  // what it can.
  if (plan.bytes() > room.bytes) plan = KeepAll(model_);
  const bool too_much = residence_.bytes() > room.bytes + room.bytes / 1024;
  const bool too_little =
      plan.kept_bytes > residence_.kept_bytes + room.bytes / 128 || plan.whole();
  if (plan.streamed_bytes != residence_.streamed_bytes && (too_much || too_little)) {
    limit_ = room.limit;
    Adopt(std::move(plan));
  } else if (stream_ != nullptr && residency.ok() && MissingBytes(*residency) > room.bytes / 64) {
    // Somebody else's need for memory has taken from what was to stay: it is read again at the
    // disk's pace rather than page by page.
    stream_ = nullptr;
  }
}

// Of the matrices that are to stay.
int64_t LayerFeed::MissingBytes(const Residency& residency) const {
  int64_t missing = 0;
  for (size_t l = 0; l < residence_.streamed.size(); ++l) {
    for (size_t m = 0; m < kLayerMatrices.size(); ++m) {
      const Matrix& matrix = model_.layers()[l].*kLayerMatrices[m];
      const int64_t begin = OffsetOf(matrix, model_.file().mapping());
      const int64_t bytes = matrix.geometry.bytes();
      if (!residence_.streamed[l][m]) missing += bytes - residency.BytesIn(begin, begin + bytes);
    }
  }
  return missing;
}

std::string LayerFeed::Describe() const {
  if (residence_.whole()) return "";
  return absl::StrCat(quire::Describe(residence_), "; limited by ", limit_);
}

void LayerFeed::Adopt(Residence residence) {
  stream_ = nullptr;
  read_ahead_ = nullptr;
  residence_ = std::move(residence);
  begun_ = false;
  ++changes_;
  // What is streamed or brought in whole is not met by page faults: those that remain, for rows of
  // the embedding, shall bring in nothing around them.
  const MappedFile& file = model_.file().mapping();
  Advise(file, 0, file.size(), residence_.whole() ? MADV_NORMAL : MADV_RANDOM);
  Advise(file, 0, file.size(), residence_.whole() ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

// The first pass is the one that waits for the disk, or for the kernel to map what it has cached.
void LayerFeed::StartReadAhead() {
  std::vector<ReadAhead::Stretch> stretches;
  for (const Layer& layer : model_.layers()) {
    const uint8_t *begin = layer.wq.data, *end = begin;
    for (Matrix Layer::* m : kLayerMatrices) {
      begin = std::min(begin, (layer.*m).data);
      end = std::max(end, (layer.*m).data + (layer.*m).geometry.bytes());
    }
    stretches.emplace_back(begin, end - begin);
  }
  stretches.emplace_back(model_.output().data, model_.output().geometry.bytes());
  read_ahead_ = std::make_unique<ReadAhead>(stretches);
}

absl::Status LayerFeed::StartStream() {
  const MappedFile& file = model_.file().mapping();
  const absl::StatusOr<Residency> residency = Residency::Read(file);
  const auto keep = [&](const Matrix& matrix, StreamBlock* block) {
    const int64_t offset = OffsetOf(matrix, file), bytes = matrix.geometry.bytes();
    if (residency.ok() && residency->BytesIn(offset, offset + bytes) == bytes) return;
    block->push_back({offset, SlotBytes(matrix), StreamPart::kInPlace});
  };
  const auto stream_to = [&](int64_t slot_offset, const Matrix& matrix, StreamBlock* block) {
    const int64_t offset = OffsetOf(matrix, file), bytes = SlotBytes(matrix);
    // What was read of it through the mapping would only be in the way. Other processes that map it
    // keep it.
    Advise(file, offset, bytes, MADV_DONTNEED);
    posix_fadvise(file.file().fd(), offset, bytes, POSIX_FADV_DONTNEED);
    // Neighbours in the file are neighbours in the slot: fewer and larger reads.
    if (!block->empty() && block->back().slot_offset != StreamPart::kInPlace &&
        block->back().offset + block->back().bytes == offset) {
      block->back().bytes += bytes;
    } else {
      block->push_back({offset, bytes, slot_offset});
    }
  };
  std::vector<StreamBlock> blocks(model_.layers().size() * kLayerSteps);
  for (size_t l = 0; l < model_.layers().size(); ++l) {
    int64_t used[kLayerSteps] = {};  // of the slot of each step
    for (size_t m = 0; m < kLayerMatrices.size(); ++m) {
      const Matrix& matrix = model_.layers()[l].*kLayerMatrices[m];
      const int step = static_cast<int>(kStepOfMatrix[m]);
      StreamBlock* block = &blocks[l * kLayerSteps + step];
      if (residence_.streamed[l][m]) {
        stream_to(used[step], matrix, block);
        used[step] += SlotBytes(matrix);
      } else {
        keep(matrix, block);
      }
    }
  }
  keep(model_.output(), &blocks.back());
  absl::StatusOr<std::unique_ptr<WeightStream>> stream =
      WeightStream::Start(file.file(), blocks, residence_.slot_bytes);
  if (!stream.ok()) return stream.status();
  stream_ = *std::move(stream);
  return absl::OkStatus();
}

absl::Status LayerFeed::BeginBatch(int64_t tokens, int64_t growth_bytes) {
  tokens_since_look_ += tokens;
  const bool due = MonotonicNanoseconds() - looked_ns_ >= kLookEveryNs ||
                   (!residence_.whole() && (tokens > 1 || tokens_since_look_ >= kLookEveryTokens));
  if (forced_bytes_ == 0 && due) Look(growth_bytes);
  const bool first = !std::exchange(begun_, true);
  if (first && residence_.whole()) StartReadAhead();
  if (residence_.whole() || stream_ != nullptr) return absl::OkStatus();
  return StartStream();
}

absl::StatusOr<const Layer*> LayerFeed::Acquire(int64_t layer, LayerStep step) {
  const Layer& mapped = model_.layers()[layer];
  last_step_ =
      layer + 1 == static_cast<int64_t>(model_.layers().size()) && step == LayerStep::kDown;
  if (read_ahead_ != nullptr) read_ahead_->WaitFor(layer);
  if (stream_ == nullptr) return &mapped;
  const absl::StatusOr<const uint8_t*> slot = stream_->Acquire();
  if (!slot.ok()) {
    stream_ = nullptr;
    return slot.status();
  }
  layer_ = mapped;
  const uint8_t* at = *slot;
  for (size_t m = 0; m < kLayerMatrices.size(); ++m) {
    if (kStepOfMatrix[m] != step || !residence_.streamed[layer][m]) continue;
    Matrix& matrix = layer_.*kLayerMatrices[m];
    matrix.data = at;
    at += SlotBytes(matrix);
  }
  return &layer_;
}

void LayerFeed::Release() {
  if (read_ahead_ != nullptr && last_step_) {
    read_ahead_->WaitFor(static_cast<int64_t>(model_.layers().size()));
    read_ahead_ = nullptr;
  }
  if (stream_ != nullptr) stream_->Release();
}

}  // namespace quire
