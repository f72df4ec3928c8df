#include <cmath>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/fuzz/mutators.h"

namespace quire {
namespace {

using Json = nlohmann::ordered_json;

// Everything below `value`, itself included; what lies deeper than a mutator needs is left out.
void Collect(Json& value, int depth, std::vector<Json*>* out) {
  out->push_back(&value);
  if (depth == 0 || !value.is_structured()) return;
  for (Json& item : value) Collect(item, depth - 1, out);
}

Json AnyValue(Random& random) {
  switch (random() % 12) {
    case 0:
      return nullptr;
    case 1:
      return random() % 2 == 0;
    case 2:
      return static_cast<int64_t>(random() % 40) - 4;
    case 3:
      return uint64_t{1} << (random() % 64);
    case 4:
      return -std::ldexp(1.0, static_cast<int>(random() % 80));
    case 5:
      return 0.5 + random() % 4;
    case 6:
      return 1e300;
    case 7:
      return "";
    case 8:
      return std::string(1 + random() % 8, static_cast<char>(random() % 128));
    case 9:
      return Json::array();
    case 10:
      return Json::object();
    default:
      return {{"a", 1}};
  }
}

void Change(Json& value, Json copy, Random& random) {
  switch (random() % 8) {
    case 0:
      value = AnyValue(random);
      break;
    case 1:
      value = std::move(copy);
      break;
    case 2:
      value = Json::array({value});
      break;
    case 3:
    case 4:
      if (value.is_object() && !value.empty()) {
        auto item = value.begin();
        std::advance(item, Below(value.size(), random));
        const std::string key = item.key();
        Json moved = *item;
        value.erase(key);
        if (random() % 2 == 0) value[MutateBytes(key, key.size() + 4)] = std::move(moved);
      } else if (value.is_array() && !value.empty()) {
        value.erase(Below(value.size(), random));
      } else {
        value = AnyValue(random);
      }
      break;
    case 5:
      if (value.is_object()) {
        value["b" + std::to_string(random() % 4)] = std::move(copy);
      } else if (value.is_array()) {
        value.push_back(std::move(copy));
      } else {
        value = AnyValue(random);
      }
      break;
    default:
      if (value.is_string()) {
        const auto text = value.get<std::string>();
        value = MutateBytes(text, text.size() + 8);
      } else if (value.is_number_integer()) {
        const auto number = value.get<uint64_t>();
        value = static_cast<int64_t>(random() % 2 == 0 ? number + random() % 5 - 2
                                                       : number ^ uint64_t{1} << random() % 40);
      } else if (value.is_number()) {
        value = value.get<double>() * (random() % 5 - 1.0);
      } else {
        value = AnyValue(random);
      }
  }
}

}  // namespace

std::string MutateJson(const std::string& text, size_t max_bytes, Random& random) {
  Json root = Json::parse(text, nullptr, false);
  if (root.is_discarded() || random() % 8 == 0) return MutateBytes(text, max_bytes);
  for (size_t times = 1 + random() % 3; times > 0; --times) {
    std::vector<Json*> values;
    Collect(root, 24, &values);
    Json copy = *values[Below(values.size(), random)];
    Change(*values[Below(values.size(), random)], std::move(copy), random);
  }
  return root.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string MutateSafetensors(const std::string& file, size_t max_bytes, Random& random) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < 8 && i < file.size(); ++i)
    bytes |= uint64_t{static_cast<uint8_t>(file[i])} << 8 * i;
  if (file.size() < 8 || bytes > file.size() - 8 || random() % 8 == 0)
    return MutateBytes(file, max_bytes);
  std::string header = file.substr(8, bytes), data = file.substr(8 + bytes), out;
  if (random() % 8 == 0) {
    data = MutateBytes(data, data.size() + 16);
  } else {
    header = MutateJson(header, header.size() + 64, random);
  }
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<char>(header.size() >> 8 * i));
  return out + header + data;
}

}  // namespace quire
