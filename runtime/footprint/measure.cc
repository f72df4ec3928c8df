#include "runtime/footprint/measure.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "format/kernel_text.h"
#include "runtime/footprint/touch_meter.h"

namespace quire {
namespace {

constexpr char kPrompt[] = "Once upon a time";

RuntimeMemory OwnMemory(Session& session) {
  const Transformer& t = session.transformer();
  return {t.kv_cache_bytes(),          t.kv_cache_resident_bytes(),
          t.scratch_bytes(),           t.scratch_resident_bytes(),
          session.feed().ring_bytes(), session.feed().ring_resident_bytes()};
}

bool IsStreamed(const Session& session, const TensorView& view) {
  const Residence& residence = session.feed().residence();
  for (size_t l = 0; l < residence.streamed.size(); ++l) {
    for (size_t m = 0; m < kLayerMatrices.size(); ++m) {
      const Matrix& matrix = session.model().layers()[l].*kLayerMatrices[m];
      if (matrix.data == view.data) return residence.streamed[l][m];
    }
  }
  return false;
}

// Before there is a model: nothing of it is mapped.
absl::StatusOr<Ledger> LedgerWithoutModel() {
  const absl::StatusOr<std::string> smaps = ReadKernelText("/proc/self/smaps");
  if (!smaps.ok()) return absl::FailedPreconditionError(smaps.status().message());
  return Reconcile(ParseSmaps(*smaps), ReadProcessMemory(), 0, 0, {});
}

class Measurement {
 public:
  explicit Measurement(Session& session, Footprint* out)
      : session_(session), mapping_(session.model().file().mapping()), out_(out) {}

  absl::Status AddStage(const std::string& name, double ms) {
    absl::StatusOr<Ledger> ledger = ReadLedger(mapping_, OwnMemory(session_));
    if (!ledger.ok()) return ledger.status();
    Stage stage{name, ms, *ledger, std::nullopt};
    const absl::StatusOr<Residency> residency = Residency::Read(mapping_);
    if (residency.ok()) {
      stage.cached = residency->bytes();
    } else {
      out_->residency_note = std::string(residency.status().message());
    }
    out_->stages.push_back(std::move(stage));
    return absl::OkStatus();
  }

  void ResidencyOfTensors() {
    absl::StatusOr<Residency> residency = Residency::Read(mapping_);
    for (const TensorView& view : session_.model().file().tensors()) {
      TensorFootprint tensor;
      tensor.name = std::string(view.name);
      tensor.offset = view.offset;
      tensor.bytes = view.bytes;
      tensor.streamed = IsStreamed(session_, view);
      if (residency.ok())
        tensor.resident = residency->BytesIn(view.offset, view.offset + view.bytes);
      out_->tensors.push_back(std::move(tensor));
    }
    if (!residency.ok()) return;
    out_->stages.back().cached = residency->bytes();  // one snapshot, so that all adds up
    out_->residency = *std::move(residency);
  }

  // What generating `id` once more reads.
  absl::Status TouchedBy(int32_t id) {
    std::vector<int64_t> starts;
    for (const TensorFootprint& tensor : out_->tensors) starts.push_back(tensor.offset);
    absl::StatusOr<TouchMeter> meter = TouchMeter::Create(mapping_, std::move(starts));
    absl::Status status = meter.status();
    if (status.ok()) status = Again(id);
    if (status.ok()) status = meter->Begin();
    if (status.ok()) status = Again(id);
    if (!status.ok()) return status;
    const absl::StatusOr<std::vector<MappingCounts>> counts = meter->Read();
    if (!counts.ok()) return counts.status();
    out_->touched_per_token = 0;
    for (size_t i = 0; i < counts->size(); ++i) {
      TensorFootprint& tensor = out_->tensors[i];
      tensor.touched =
          tensor.streamed ? tensor.bytes : std::min((*counts)[i].referenced, tensor.bytes);
      *out_->touched_per_token += *tensor.touched;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Again(int32_t id) {
    Transformer& transformer = session_.transformer();
    transformer.Rewind(transformer.position() - 1);
    absl::Status status = transformer.Forward({id});
    if (status.ok()) transformer.Logits();
    return status;
  }

  Session& session_;
  const MappedFile& mapping_;
  Footprint* out_;
};

// A tokenizer is loaded as `quire run` loads it: it is part of what a run costs.
absl::StatusOr<std::vector<int32_t>> Prompt(const Session& session,
                                            std::optional<Tokenizer>* tokenizer) {
  if (!session.model().file().has_tokenizer()) return std::vector<int32_t>{0};
  absl::StatusOr<Tokenizer> loaded = session.LoadTokenizer();
  if (!loaded.ok()) return loaded.status();
  tokenizer->emplace(*std::move(loaded));
  absl::StatusOr<std::vector<int32_t>> prompt = (*tokenizer)->Encode(kPrompt);
  if (prompt.ok() && prompt->empty()) return std::vector<int32_t>{0};
  return prompt;
}

}  // namespace

absl::StatusOr<Footprint> MeasureFootprint(const std::string& path, const SessionOptions& options,
                                           int64_t tokens) {
  Footprint out;
  Timeline timeline;
  const absl::StatusOr<Ledger> start = LedgerWithoutModel();
  if (!start.ok()) return start.status();
  out.stages.push_back({"start", timeline.Milliseconds(), *start, std::nullopt});

  const absl::StatusOr<std::unique_ptr<Session>> opened = Session::Open(path, options);
  if (!opened.ok()) return opened.status();
  Session& session = **opened;
  Measurement measurement(session, &out);
  absl::Status status = measurement.AddStage("open", timeline.Milliseconds());
  if (!status.ok()) return status;
  // Opening reads no weight: what is cached now was cached before.
  out.stages[0].cached = out.last().cached;

  std::optional<Tokenizer> tokenizer;
  const absl::StatusOr<std::vector<int32_t>> prompt = Prompt(session, &tokenizer);
  if (!prompt.ok()) return prompt.status();
  Sampler sampler{SamplerOptions()};
  int32_t last = prompt->back();
  absl::Status stage_status;
  const absl::StatusOr<Generation> generation =
      session.Generate(*prompt, tokens, {}, sampler, [&](int32_t id) {
        if (out.stages.size() == 2)
          stage_status = measurement.AddStage("first token", timeline.Milliseconds());
        last = id;
      });
  if (!generation.ok()) return generation.status();
  if (!stage_status.ok()) return stage_status;
  status = measurement.AddStage("steady state", timeline.Milliseconds());
  if (!status.ok()) return status;
  out.timeline = timeline.Finish();

  out.path = path;
  out.architecture = session.model().config().architecture();
  out.kernels = session.kernels().name;
  out.file_bytes = session.model().file().mapping().size();
  out.n_layers = session.model().config().n_layers();
  out.threads = session.pool().size();
  out.ctx = session.transformer().ctx();
  out.tokens = static_cast<int64_t>(generation->tokens.size());
  out.residence = session.feed().residence();
  out.residence_changes = session.feed().changes();
  out.streamed_note = session.feed().Describe();
  out.own = OwnMemory(session);
  out.machine = ParseMemInfo(ReadKernelText("/proc/meminfo").value_or(""));
  if (absl::StatusOr<CgroupMemory> cgroup = ReadCgroupMemory("/proc/self", ReadKernelText);
      cgroup.ok()) {
    out.cgroup = *std::move(cgroup);
  }
  out.io = ParseProcIo(ReadKernelText("/proc/self/io").value_or(""));
  if (absl::StatusOr<ProcStat> stat = ParseProcStat(ReadKernelText("/proc/self/stat").value_or(""));
      stat.ok()) {
    out.stat = *std::move(stat);
  }
  measurement.ResidencyOfTensors();
  status = measurement.TouchedBy(last);
  if (!status.ok()) {
    if (!absl::IsFailedPrecondition(status)) return status;
    out.touched_note = std::string(status.message());
  }
  return out;
}

}  // namespace quire
