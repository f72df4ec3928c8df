// A tokenizer at the end of a pipe, for tests against the reference libraries.
//
//   tokenize PATH          a tokenizer file, or a folder that has one
//   tokenize --gguf PATH   GgufTokenizerFields as a JSON object
//
// Each line of standard input is a JSON object, each line of standard output its answer:
//   {"text": s | "hex": bytes, "bos": b, "special": b}     -> {"ids": [...]}
//   {"ids": [...], "special": b, "continues": b}           -> {"text": s, "stream": [s, ...]}
//   {"messages": [{"role": s, "content": s}], "prompt": b} -> {"text": s}
//   {"info": true}                  -> {"size": n, "bos": n | null, "eos": [...], "create_ms": x,
//   "bytes": n}
//   {"time": n}                     -> {"parse_ms": x, "create_ms": x}: the fastest of n
// or {"error": message} instead. A tokenizer that cannot be had is {"error": ...} on every line.
#include <chrono>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "convert/tokenizer_import.h"
#include "format/file.h"
#include "nlohmann/json.hpp"
#include "runtime/chat_template.h"
#include "runtime/tokenizer.h"

namespace quire {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

double Milliseconds(Clock::time_point since) {
  return std::chrono::duration<double, std::milli>(Clock::now() - since).count();
}

template <typename T>
void Set(const Json& object, const char* key, T* out) {
  if (object.contains(key)) *out = object[key].get<T>();
}
template <typename T>
void Set(const Json& object, const char* key, std::optional<T>* out) {
  if (object.contains(key)) *out = object[key].get<T>();
}

absl::StatusOr<pb::Tokenizer> ImportGguf(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadWholeFile(path, 1 << 28);
  if (!text.ok()) return text.status();
  const Json json = Json::parse(*text, nullptr, false);
  if (!json.is_object()) return absl::InvalidArgumentError("not a JSON object");
  GgufTokenizerFields fields;
  Set(json, "model", &fields.model);
  Set(json, "pre", &fields.pre);
  Set(json, "tokens", &fields.tokens);
  Set(json, "scores", &fields.scores);
  Set(json, "token_types", &fields.token_types);
  Set(json, "merges", &fields.merges);
  Set(json, "bos_id", &fields.bos_id);
  Set(json, "eos_id", &fields.eos_id);
  Set(json, "eot_id", &fields.eot_id);
  Set(json, "eom_id", &fields.eom_id);
  Set(json, "unknown_id", &fields.unknown_id);
  Set(json, "add_bos", &fields.add_bos);
  Set(json, "add_eos", &fields.add_eos);
  Set(json, "add_space_prefix", &fields.add_space_prefix);
  Set(json, "chat_template", &fields.chat_template);
  return ImportGgufTokenizer(fields);
}

Json Error(const absl::Status& status) { return {{"error", status.ToString()}}; }

Json RenderChat(const Tokenizer& tokenizer, const Json& request) {
  std::vector<ChatMessage> messages;
  for (const Json& m : request["messages"]) {
    messages.push_back({m["role"].get<std::string>(), m["content"].get<std::string>()});
  }
  const absl::StatusOr<ChatTemplate> chat = ChatTemplate::Create(tokenizer.chat_template());
  if (!chat.ok()) return Error(chat.status());
  ChatTemplate::Options options;
  if (tokenizer.bos_id()) options.bos_token = std::string(tokenizer.piece(*tokenizer.bos_id()));
  if (!tokenizer.eos_ids().empty())
    options.eos_token = std::string(tokenizer.piece(tokenizer.eos_ids()[0]));
  options.add_generation_prompt = request.value("prompt", true);
  const absl::StatusOr<std::string> text = chat->Render(messages, options);
  if (!text.ok()) return Error(text.status());
  return {{"text", *text}};
}

Json Answer(const Tokenizer& tokenizer, const Json& request, const std::string& serialized) {
  const bool special = request.value("special", false);
  if (request.contains("text") || request.contains("hex")) {
    const std::string text = request.contains("hex")
                                 ? absl::HexStringToBytes(request["hex"].get<std::string>())
                                 : request["text"].get<std::string>();
    const absl::StatusOr<std::vector<int32_t>> ids =
        tokenizer.Encode(text, {request.value("bos", false), special});
    if (!ids.ok()) return Error(ids.status());
    return {{"ids", *ids}};
  }
  if (request.contains("ids")) {
    const std::vector<int32_t> ids = request["ids"].get<std::vector<int32_t>>();
    const Tokenizer::DecodeOptions options{special, request.value("continues", false)};
    StreamDecoder decoder(&tokenizer, options);
    std::vector<std::string> stream;
    for (const int32_t id : ids) stream.push_back(decoder.Add(id));
    stream.push_back(decoder.Finish());
    return {{"text", tokenizer.Decode(ids, options)}, {"stream", stream}};
  }
  if (request.contains("messages")) return RenderChat(tokenizer, request);
  if (request.contains("time")) {
    double parse_ms = 1e9, create_ms = 1e9;
    for (int i = 0; i < request["time"].get<int>(); ++i) {
      pb::Tokenizer proto;
      const Clock::time_point start = Clock::now();
      proto.ParseFromString(serialized);
      const Clock::time_point parsed = Clock::now();
      parse_ms =
          std::min(parse_ms, std::chrono::duration<double, std::milli>(parsed - start).count());
      const absl::StatusOr<Tokenizer> again = Tokenizer::Create(std::move(proto));
      create_ms = std::min(create_ms, Milliseconds(parsed));
    }
    return {{"parse_ms", parse_ms}, {"create_ms", create_ms}, {"bytes", serialized.size()}};
  }
  const std::vector<int32_t> eos(tokenizer.eos_ids().begin(), tokenizer.eos_ids().end());
  Json info = {{"size", tokenizer.size()},
               {"bos", nullptr},
               {"eos", eos},
               {"chat_template", tokenizer.chat_template()}};
  if (tokenizer.bos_id()) info["bos"] = *tokenizer.bos_id();
  return info;
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "tokenize [--gguf] PATH\n";
    return 2;
  }
  const std::string path = argv[argc - 1];
  absl::StatusOr<pb::Tokenizer> proto;
  if (std::string(argv[1]) == "--gguf") {
    proto = ImportGguf(path);
  } else {
    proto = std::filesystem::is_directory(path) ? ImportTokenizerFolder(path)
                                                : ImportTokenizerFile(path);
  }
  std::string serialized;
  absl::StatusOr<Tokenizer> tokenizer = absl::UnknownError("");
  if (proto.ok()) {
    serialized = proto->SerializeAsString();
    tokenizer = Tokenizer::Create(*std::move(proto));
  } else {
    tokenizer = proto.status();
  }
  for (std::string line; std::getline(std::cin, line);) {
    const Json request = Json::parse(line, nullptr, false);
    Json answer;
    if (!tokenizer.ok()) {
      answer = Error(tokenizer.status());
    } else if (!request.is_object()) {
      answer = Error(absl::InvalidArgumentError("not a JSON object"));
    } else {
      answer = Answer(*tokenizer, request, serialized);
    }
    std::cout << answer.dump(-1, ' ', true, Json::error_handler_t::replace) << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) { return quire::Main(argc, argv); }
