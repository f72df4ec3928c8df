#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "convert/pickle_machine.h"

namespace quire {

// No cycle, no path deeper than the limit, no more to walk than the limit. One visit a node,
// however often it is shared, on a stack of its own. The content of opaque objects is no part of
// the tree: nothing walks it, and there back references to a parent are usual.
absl::Status CheckPickleGraph(const Pickle& p, absl::string_view place) {
  struct Entered {
    Pickle::Ref node;
    uint32_t next = 0;  // of its children, to be visited
    int32_t depth = 1;
    int64_t walk = 1;
  };
  struct Measure {
    int32_t depth = 0;  // 0: not seen; -1: being visited
    uint32_t walk = 0;
  };
  auto children = [&p](Pickle::Ref r, Pickle::Ref* single) -> absl::Span<const Pickle::Ref> {
    switch (p.kind(r)) {
      case Pickle::Kind::kTuple:
      case Pickle::Kind::kList:
      case Pickle::Kind::kDict:
        return p.Items(r);
      case Pickle::Kind::kObject:
        switch (p.Global(r).role) {
          case GlobalRole::kObjectClass:
            return {};
          case GlobalRole::kNamespaceClass:
            *single = p.State(r);
            return {single, p.HasState(r) ? size_t{1} : size_t{0}};
          default:
            break;
        }
        [[fallthrough]];
      case Pickle::Kind::kPersistent:
        *single = p.Content(r);
        return {single, 1};
      default:
        return {};
    }
  };
  std::vector<Measure> measures(p.size());
  std::vector<Entered> path = {{p.root()}};
  measures[p.root()].depth = -1;
  while (!path.empty()) {
    Entered& top = path.back();
    Pickle::Ref single;
    const auto below = children(top.node, &single);
    if (top.next < below.size()) {
      const Pickle::Ref child = below[top.next];
      const Measure& m = measures[child];
      if (m.depth < 0) {
        return absl::InvalidArgumentError(
            absl::StrCat(place, ": a cycle: a value contains itself"));
      }
      if (m.depth > 0) {
        top.depth = std::max(top.depth, m.depth + 1);
        top.walk += m.walk;
        ++top.next;
        if (top.walk > kMaxPickleWalk) {
          return absl::ResourceExhaustedError(
              absl::StrCat(place, ": shared values stand for more than ", kMaxPickleWalk,
                           " when each is counted wherever it is met, the limit"));
        }
      } else {
        measures[child].depth = -1;
        path.push_back({child});
      }
    } else {
      measures[top.node] = {top.depth, static_cast<uint32_t>(top.walk)};
      path.pop_back();
    }
    if (path.size() > kMaxPickleDepth || (!path.empty() && path.back().depth > kMaxPickleDepth)) {
      return absl::ResourceExhaustedError(
          absl::StrCat(place, ": values nested deeper than ", kMaxPickleDepth, ", the limit"));
    }
  }
  return absl::OkStatus();
}

}  // namespace quire
