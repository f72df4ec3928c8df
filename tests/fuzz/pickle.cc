// Pickles: the values, and the tensors that they list, in the order of an archive with right
// checksums around them.
#include <algorithm>
#include <string>
#include <vector>

#include "convert/pickle_vm.h"
#include "convert/strided_read.h"
#include "convert/torch_listing.h"
#include "tests/fuzz/fuzz_file.h"

namespace quire {
namespace {

// Everything below r; the pickle's limits bound the depth and the number of visits.
int64_t Walk(const Pickle& p, Pickle::Ref r, int depth) {
  FuzzCheck(r < p.size() && depth <= kMaxPickleDepth, "references and depth are in bounds");
  int64_t visits = 1;
  switch (p.kind(r)) {
    case Pickle::Kind::kTuple:
    case Pickle::Kind::kList:
    case Pickle::Kind::kDict:
      for (Pickle::Ref item : p.Items(r)) visits += Walk(p, item, depth + 1);
      FuzzCheck(p.kind(r) != Pickle::Kind::kDict || p.Items(r).size() % 2 == 0, "dicts have pairs");
      break;
    case Pickle::Kind::kPersistent:
      visits += Walk(p, p.Content(r), depth + 1);
      break;
    case Pickle::Kind::kObject:
      FuzzCheck(p.kind(p.Content(r)) == Pickle::Kind::kTuple, "arguments are a tuple");
      break;
    case Pickle::Kind::kString:
    case Pickle::Kind::kBytes:
    case Pickle::Kind::kLong:
      FuzzCheck(p.Text(r).size() <= 1 << 20, "texts are of the input");
      break;
    default:
      break;
  }
  return visits;
}

void ReadViews(const TorchListing& listing) {
  FuzzCheck(listing.tensors.size() == listing.views.size(), "each tensor has a view");
  for (size_t i = 0; i < listing.tensors.size(); ++i) {
    const TorchView& v = listing.views[i];
    const int64_t bytes = listing.storages[static_cast<size_t>(v.storage)].bytes;
    const int64_t elements = listing.tensors[i].elements();
    FuzzCheck(elements >= 0 && listing.tensors[i].bytes() >= 0, "sizes do not wrap");
    FuzzCheck(listing.tensors[i].bytes() - bytes <= kMaxRepeatedBytes, "repetition is limited");
    const int64_t count = std::min<int64_t>(elements, 1000);
    std::vector<uint8_t> out(static_cast<size_t>(count * v.view.element_bytes));
    auto read = [&](int64_t offset, absl::Span<uint8_t> to) {
      FuzzCheck(offset >= 0 && offset + static_cast<int64_t>(to.size()) <= bytes,
                "reads are inside of the storage");
      return absl::OkStatus();
    };
    for (int64_t begin : {int64_t{0}, elements - count}) {
      FuzzCheck(ReadStrided(v.view, begin, count, read, absl::MakeSpan(out)).ok(),
                "a view is read");
    }
  }
}

}  // namespace
}  // namespace quire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire;
  auto pickle = ParsePickle(absl::string_view(reinterpret_cast<const char*>(data), size), "x");
  if (!pickle.ok()) {
    FuzzCheck(!pickle.status().message().empty(), "a refusal says why");
    return 0;
  }
  FuzzCheck(pickle->consumed_bytes() <= static_cast<int64_t>(size), "STOP is in the input");
  FuzzCheck(Walk(*pickle, pickle->root(), 1) <= kMaxPickleWalk, "a walk is limited");
  auto listing = ListTorchTensors(*pickle, "x");
  if (listing.ok()) {
    ReadViews(*listing);
  } else {
    FuzzCheck(!listing.status().message().empty(), "a refusal says why");
  }
  return 0;
}
