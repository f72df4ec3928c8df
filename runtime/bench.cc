#include "runtime/bench.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "format/command_line.h"
#include "format/kernel_text.h"
#include "format/process_memory.h"
#include "nlohmann/json.hpp"
#include "runtime/child_process.h"
#include "runtime/disk_roof.h"
#include "runtime/footprint/proc.h"
#include "runtime/footprint/residency.h"
#include "runtime/memory_limit.h"
#include "runtime/process_clock.h"
#include "runtime/roof.h"
#include "runtime/session.h"

namespace quire {
namespace {

// Many times any cache; about 10 ms of reading.
constexpr int64_t kRoofBytes = int64_t{512} << 20;
constexpr int kRoofPasses = 8;
// A second of reading on a fast disk, and more than one keeps in memory of its own.
constexpr int64_t kDiskBytes = int64_t{2} << 30;

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// Reads a stretch of the mapped weights now and then while tokens are generated: what the threads
// read of the same memory, in the same moments.
class ReadMeter {
 public:
  ReadMeter(const Model& model, ThreadPool& pool) : pool_(pool) {
    const TensorView& last = model.file().tensors().back();
    const int64_t end = last.offset + last.bytes, bytes = std::min(end, kStretchBytes);
    stretch_ = {model.file().mapping().data() + end - bytes, static_cast<size_t>(bytes)};
  }

  void OnToken() {
    if (++tokens_ % kEveryTokens != 0) return;
    const int64_t start = MonotonicNanoseconds();
    const double rate = ReadBandwidth(stretch_, pool_);
    read_seconds_ += static_cast<double>(stretch_.size()) / rate;
    read_bytes_ += static_cast<double>(stretch_.size());
    seconds_ += 1e-9 * static_cast<double>(MonotonicNanoseconds() - start);
  }
  double seconds() const { return seconds_; }  // that all of it took
  double bytes_per_second() const { return read_bytes_ > 0 ? read_bytes_ / read_seconds_ : 0; }

 private:
  static constexpr int64_t kStretchBytes = int64_t{1} << 30;
  static constexpr int kEveryTokens = 4;
  ThreadPool& pool_;
  absl::Span<const uint8_t> stretch_;
  int64_t tokens_ = 0;
  double read_bytes_ = 0, read_seconds_ = 0, seconds_ = 0;
};

struct Roof {
  double read_bytes_per_second = 0;
  double ops_per_second = 0;
};

// The best of several measurements of each.
absl::Status Measure(absl::Span<const Peak> peaks, ThreadPool& pool, Roof* roof) {
  const absl::StatusOr<AnonymousMemory> memory = RoofMemory(kRoofBytes, pool);
  if (!memory.ok()) return memory.status();
  const Peak* peak = BestPeak(peaks);
  for (int pass = 0; pass < kRoofPasses; ++pass) {
    roof->read_bytes_per_second =
        std::max(roof->read_bytes_per_second,
                 ReadBandwidth({memory->data(), static_cast<size_t>(memory->bytes())}, pool));
    if (peak != nullptr)
      roof->ops_per_second = std::max(roof->ops_per_second, MeasurePeak(*peak, pool));
  }
  return absl::OkStatus();
}

// Operations of a prompt's token: a multiply and an add for each weight of the layers.
int64_t PrefillOps(const Model& model) {
  int64_t ops = 0;
  for (const Layer& l : model.layers()) {
    for (const Matrix* m : {&l.wq, &l.wk, &l.wv, &l.wo, &l.w_gate, &l.w_up, &l.w_down}) {
      ops += 2 * m->geometry.rows * m->geometry.cols;
    }
  }
  return ops;
}

// Ids that no tokenizer would put together, the same on every machine.
std::vector<int32_t> Prompt(int64_t n, const Model& model, uint64_t seed) {
  Random random(seed);
  std::vector<int32_t> tokens(n);
  for (int32_t& id : tokens) id = static_cast<int32_t>(random.Next() % model.config().vocab_size());
  return tokens;
}

// Brings the file's pages into the page cache, or drops them, and returns how many bytes are there.
absl::StatusOr<int64_t> PrepareCache(const std::string& path, bool cold) {
  const absl::StatusOr<MappedFile> file = MappedFile::Map(path);
  if (!file.ok()) return file.status();
  const int fd = file->file().fd();
  if (cold) {
    fdatasync(fd);  // pages that are not on the disk yet cannot be dropped
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  } else {
    std::vector<uint8_t> buffer(1 << 20);
    Progress progress("reading the file once", file->size());
    for (int64_t at = 0; at < file->size();) {
      const int64_t n = std::min<int64_t>(buffer.size(), file->size() - at);
      absl::Status status = file->file().ReadAt(at, absl::MakeSpan(buffer).subspan(0, n));
      if (!status.ok()) return status;
      progress.Update(at += n);
    }
  }
  const absl::StatusOr<Residency> residency = Residency::Read(*file);
  if (!residency.ok()) return residency.status();
  return residency->bytes();
}

absl::StatusOr<ProcessFigures> ReadFigures(pid_t pid) {
  const std::string proc = absl::StrCat("/proc/", pid, "/");
  std::string texts[4];
  const char* names[] = {"status", "smaps_rollup", "stat", "io"};
  for (int i = 0; i < 4; ++i) {
    absl::StatusOr<std::string> text = ReadKernelText(proc + names[i]);
    if (!text.ok()) return text.status();
    texts[i] = *std::move(text);
  }
  const ProcessMemory memory = ParseProcStatus(texts[0]);
  const MappingCounts counts = ParseSmapsRollup(texts[1]);
  const absl::StatusOr<ProcStat> stat = ParseProcStat(texts[2]);
  if (!stat.ok()) return stat.status();
  ProcessFigures figures;
  figures.rss_anon_bytes = memory.rss_anon;
  figures.rss_file_bytes = memory.rss_file;
  figures.pss_bytes = counts.pss;
  figures.private_dirty_bytes = counts.private_dirty;
  figures.peak_rss_bytes = memory.peak_rss;
  figures.minor_faults = stat->minor_faults;
  figures.major_faults = stat->major_faults;
  figures.read_bytes = ParseProcIo(texts[3]).read_bytes;
  return figures;
}

// What BenchWorker printed, from all processes.
struct Samples {
  std::vector<double> open_ms, ready_ms, first_token_ms, prefill, decode, read;
  std::vector<double> read_roof, ops_roof, disk_roof;  // one a repetition
};

absl::Status AddSample(const std::string& line, Samples* samples, BenchResult* result) {
  const nlohmann::json figures = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!figures.is_object()) return absl::InternalError("a measured process printed no figures");
  samples->open_ms.push_back(figures["open_ms"].get<double>());
  samples->ready_ms.push_back(figures["ready_ms"].get<double>());
  samples->first_token_ms.push_back(figures["first_token_ms"].get<double>());
  samples->prefill.push_back(figures["prefill_tokens_per_second"].get<double>());
  samples->decode.push_back(figures["decode_tokens_per_second"].get<double>());
  const double read = figures["memory_read_bytes_per_second"].get<double>();
  if (read > 0) samples->read.push_back(read);
  result->kv_cache_bytes = figures["kv_cache_bytes"].get<int64_t>();
  result->scratch_bytes = figures["scratch_bytes"].get<int64_t>();
  result->weights_kept_bytes = figures["weights_kept_bytes"].get<int64_t>();
  result->weights_streamed_bytes = figures["weights_streamed_bytes"].get<int64_t>();
  result->stream_buffer_bytes = figures["stream_buffer_bytes"].get<int64_t>();
  result->threads = figures["threads"].get<int64_t>();
  result->kernels = figures["kernels"].get<std::string>();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BenchResult> MeasureBench(const std::string& path, const BenchOptions& options) {
  BenchResult result;
  absl::Span<const Peak> peaks;
  {
    const absl::StatusOr<Model> model = Model::Open(path);
    if (!model.ok()) return model.status();
    result.model_bytes = model->file().mapping().size();
    result.decode_bytes_per_token = model->decode_bytes();
    result.prefill_ops_per_token = PrefillOps(*model);
    peaks = model->layers()[0].wq.is_integer() ? Int8Peaks() : F32Peaks();
  }
  std::unique_ptr<MemoryLimit> limit;
  if (options.memory_limit > 0) {
    absl::StatusOr<std::unique_ptr<MemoryLimit>> created =
        MemoryLimit::Create(options.memory_limit);
    if (!created.ok()) return created.status();
    limit = *std::move(created);
  }
  const int threads = options.threads > 0 ? static_cast<int>(options.threads) : DefaultThreads();
  const std::vector<std::string> args = {"bench",
                                         path,
                                         "--worker",
                                         "--prompt-tokens",
                                         absl::StrCat(options.prompt_tokens),
                                         "--tokens",
                                         absl::StrCat(options.tokens),
                                         "--threads",
                                         absl::StrCat(threads),
                                         "--resident",
                                         absl::StrCat(options.resident)};
  Samples samples;
  for (int64_t repetition = 0; repetition < options.repetitions; ++repetition) {
    // Before and after, since the machine's speed drifts.
    Roof roof;
    const auto measure_roof = [&] {
      ThreadPool pool(threads);
      return Measure(peaks, pool, &roof);
    };
    if (absl::Status status = measure_roof(); !status.ok()) return status;
    // Pages that are in the page cache already are not charged to the limit.
    const bool drop = options.cold || (limit != nullptr && repetition == 0);
    const absl::StatusOr<int64_t> resident = PrepareCache(path, drop);
    if (!resident.ok()) return resident.status();
    result.resident_before_bytes = *resident;

    std::vector<std::unique_ptr<ChildProcess>> children;
    for (int64_t i = 0; i < options.processes; ++i) {
      absl::StatusOr<std::unique_ptr<ChildProcess>> child =
          ChildProcess::Start(args, limit == nullptr ? "" : limit->folder());
      if (!child.ok()) return child.status();
      children.push_back(*std::move(child));
    }
    for (const auto& child : children) {
      const absl::StatusOr<std::string> line = child->ReadLine();
      if (!line.ok()) return line.status();
      absl::Status status = AddSample(*line, &samples, &result);
      if (!status.ok()) return status;
    }
    // All have generated and none has ended: now their shares of the pages are what they are.
    result.processes.clear();
    result.total_pss_bytes = 0;
    for (const auto& child : children) {
      absl::StatusOr<ProcessFigures> figures = ReadFigures(child->pid());
      if (!figures.ok()) return figures.status();
      result.total_pss_bytes += figures->pss_bytes;
      result.processes.push_back(*std::move(figures));
    }
    for (const auto& child : children) {
      if (absl::Status status = child->Wait(); !status.ok()) return status;
    }
    if (absl::Status status = measure_roof(); !status.ok()) return status;
    samples.read_roof.push_back(roof.read_bytes_per_second);
    samples.ops_roof.push_back(roof.ops_per_second);
    if (result.weights_streamed_bytes > 0) {
      const absl::StatusOr<double> disk = MeasureDiskRead(path, kDiskBytes);
      if (disk.ok()) samples.disk_roof.push_back(*disk);
    }
  }
  result.open_ms = Median(samples.open_ms);
  result.ready_ms = Median(samples.ready_ms);
  result.first_token_ms = Median(samples.first_token_ms);
  result.prefill_tokens_per_second = Median(samples.prefill);
  result.decode_tokens_per_second = Median(samples.decode);
  result.memory_read_bytes_per_second =
      Median(samples.read.empty() ? samples.read_roof : samples.read);
  result.compute_ops_per_second = Median(samples.ops_roof);
  result.disk_read_bytes_per_second = Median(samples.disk_roof);
  return result;
}

absl::Status BenchWorker(const std::string& path, const BenchOptions& options) {
  SessionOptions session_options;
  session_options.threads = options.threads;
  session_options.resident.bytes = options.resident;
  const int64_t wanted = options.prompt_tokens + options.tokens;
  if (wanted > kDefaultCtx) session_options.ctx = wanted;
  absl::StatusOr<std::unique_ptr<Session>> opened = Session::Open(path, session_options);
  if (!opened.ok()) return opened.status();
  Session& session = **opened;
  // Part of what stands between a user and the first token.
  std::optional<Tokenizer> tokenizer;
  if (session.model().file().has_tokenizer()) {
    absl::StatusOr<Tokenizer> loaded = session.LoadTokenizer();
    if (!loaded.ok()) return loaded.status();
    tokenizer = *std::move(loaded);
  }
  const double ready_ms = MillisecondsSinceStart();
  Sampler sampler(SamplerOptions{});
  double first_token_ms = 0;
  const absl::StatusOr<Generation> first =
      session.Generate(Prompt(options.prompt_tokens, session.model(), 1), 1, {}, sampler,
                       [&](int32_t) { first_token_ms = MillisecondsSinceStart(); });
  if (!first.ok()) return first.status();
  // Another prompt, which shares no beginning with the first, shows the speed once all is mapped.
  ReadMeter meter(session.model(), session.pool());
  // What is streamed is not there to be read, and may not be brought in where memory is short.
  const bool mapped = options.resident == 0 && session.feed().residence().whole();
  const absl::StatusOr<Generation> second = session.Generate(
      Prompt(options.prompt_tokens, session.model(), 2), options.tokens, {}, sampler, [&](int32_t) {
        if (mapped) meter.OnToken();
      });
  if (!second.ok()) return second.status();
  const auto rate = [](int64_t tokens, double seconds) {
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
  };
  const nlohmann::json figures = {
      {"open_ms", session.open_ms()},
      {"ready_ms", ready_ms},
      {"first_token_ms", first_token_ms},
      {"prefill_tokens_per_second", rate(second->prefilled, second->prefill_seconds)},
      {"decode_tokens_per_second", rate(static_cast<int64_t>(second->tokens.size()) - 1,
                                        second->decode_seconds - meter.seconds())},
      {"memory_read_bytes_per_second", meter.bytes_per_second()},
      {"decode_bytes_per_token", session.model().decode_bytes()},
      {"prefill_ops_per_token", PrefillOps(session.model())},
      {"kv_cache_bytes", session.transformer().kv_cache_bytes()},
      {"scratch_bytes", session.transformer().scratch_bytes()},
      {"weights_kept_bytes", session.feed().residence().kept_bytes},
      {"weights_streamed_bytes", session.feed().residence().streamed_bytes},
      {"stream_buffer_bytes", session.feed().ring_bytes()},
      {"threads", session.pool().size()},
      {"kernels", session.kernels().name},
  };
  std::printf("%s\n", figures.dump().c_str());
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  return absl::OkStatus();
}

}  // namespace quire
