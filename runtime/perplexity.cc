#include "runtime/perplexity.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/logits_file.h"

namespace quire {
namespace {

// log(sum(e^logit)).
double LogSumExp(absl::Span<const float> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - max);
  return max + std::log(sum);
}

absl::Status CheckBase(const LogitsFile& base, const std::string& path, const LogitsHeader& header,
                       const std::vector<int32_t>& tokens) {
  const LogitsHeader& b = base.header();
  if (b.vocab_size != header.vocab_size || b.ctx != header.ctx || b.first != header.first) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is about ", b.vocab_size, " tokens of vocabulary and a context of ",
                     b.ctx, "; here they are ", header.vocab_size, " and ", header.ctx));
  }
  if (b.n_chunks < header.n_chunks) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has ", b.n_chunks, " chunks, the text ",
                                                   header.n_chunks, "; --chunks ", b.n_chunks,
                                                   " compares as many as there are"));
  }
  if (!std::equal(tokens.begin(), tokens.end(), base.tokens().begin())) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is about another text"));
  }
  return absl::OkStatus();
}

// The predictions of consecutive positions and what is made of them.
class Scorer {
 public:
  Scorer(Session& session, const LogitsHeader& header, std::optional<LogitsFile> base,
         std::unique_ptr<LogitsFileWriter> writer)
      : session_(session), header_(header), base_(std::move(base)), writer_(std::move(writer)) {}

  // logits [n][stride] predict next[0..n).
  absl::Status Add(const float* logits, absl::Span<const int32_t> next) {
    const int64_t n = next.size(), stride = session_.transformer().logits_stride();
    const int64_t at = nll_.size(), row_bytes = header_.row_bytes();
    nll_.resize(at + n);
    if (base_.has_value() || writer_ != nullptr) rows_.resize(n * row_bytes);
    if (base_.has_value()) {
      kld_.resize(at + n);
      agrees_.resize(at + n);
      absl::Status status = base_->Read(at, n, absl::MakeSpan(rows_));
      if (!status.ok()) return status;
    }
    session_.pool().ParallelFor(n, [&](int64_t i, int) {
      const absl::Span<const float> row(logits + i * stride, header_.vocab_size);
      nll_[at + i] = LogSumExp(row) - row[next[i]];
      uint8_t* stored = rows_.data() + i * row_bytes;
      if (base_.has_value()) {
        std::vector<float> expected(header_.vocab_size);
        const int32_t top = DecodeLogitsRow(stored, absl::MakeSpan(expected));
        kld_[at + i] = KlDivergence(expected, row);
        agrees_[at + i] = std::max_element(row.begin(), row.end()) - row.begin() == top;
      }
      if (writer_ != nullptr) EncodeLogitsRow(row, stored);
    });
    return writer_ == nullptr ? absl::OkStatus() : writer_->Append(rows_);
  }

  absl::StatusOr<PerplexityResult> Finish() {
    if (writer_ != nullptr) {
      if (absl::Status status = writer_->Finish(); !status.ok()) return status;
    }
    PerplexityResult result;
    result.tokens = nll_.size();
    for (const double nll : nll_) result.nll += nll / static_cast<double>(nll_.size());
    if (!base_.has_value()) return result;
    Divergence divergence{};
    for (const double kld : kld_) divergence.mean_kld += kld / static_cast<double>(kld_.size());
    divergence.top1_agreement = static_cast<double>(std::count(agrees_.begin(), agrees_.end(), 1)) /
                                static_cast<double>(agrees_.size());
    std::sort(kld_.begin(), kld_.end());
    // Between the two order statistics that enclose it.
    const double place = 0.99 * static_cast<double>(kld_.size() - 1);
    const size_t below = static_cast<size_t>(place), above = std::min(below + 1, kld_.size() - 1);
    divergence.p99_kld =
        kld_[below] + (place - static_cast<double>(below)) * (kld_[above] - kld_[below]);
    result.divergence = divergence;
    return result;
  }

 private:
  Session& session_;
  const LogitsHeader header_;
  const std::optional<LogitsFile> base_;
  const std::unique_ptr<LogitsFileWriter> writer_;
  std::vector<double> nll_, kld_;
  std::vector<char> agrees_;
  std::vector<uint8_t> rows_;
};

}  // namespace

double PerplexityResult::perplexity() const { return std::exp(nll); }

double KlDivergence(absl::Span<const float> base_log_probabilities,
                    absl::Span<const float> logits) {
  const double normalizer = LogSumExp(logits);
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double log_p = base_log_probabilities[i];
    sum += std::exp(log_p) * (log_p - (logits[i] - normalizer));
  }
  return sum;
}

absl::StatusOr<PerplexityResult> MeasurePerplexity(
    Session& session, std::vector<int32_t> tokens, std::optional<int32_t> bos,
    const PerplexityOptions& options,
    absl::FunctionRef<void(int64_t done, int64_t chunks)> progress) {
  Transformer& transformer = session.transformer();
  const int64_t ctx = transformer.ctx();
  int64_t chunks = static_cast<int64_t>(tokens.size()) / ctx;
  if (chunks < 1 || ctx < 4) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text has ", tokens.size(), " tokens, a chunk ", ctx,
                     "; wanted are at least one chunk, of 4 tokens or more"));
  }
  if (options.chunks > 0) chunks = std::min(chunks, options.chunks);
  tokens.resize(chunks * ctx);
  for (int64_t c = 0; c < chunks && bos.has_value(); ++c) tokens[c * ctx] = *bos;

  const int64_t first = ctx / 2;
  const LogitsHeader header{session.model().config().vocab_size(), static_cast<uint32_t>(ctx),
                            static_cast<uint32_t>(chunks), static_cast<uint32_t>(first)};
  std::optional<LogitsFile> base;
  if (!options.kl_base.empty()) {
    absl::StatusOr<LogitsFile> file = LogitsFile::Open(options.kl_base);
    if (!file.ok()) return file.status();
    absl::Status status = CheckBase(*file, options.kl_base, header, tokens);
    if (!status.ok()) return status;
    base = *std::move(file);
  }
  std::unique_ptr<LogitsFileWriter> writer;
  if (!options.save_logits.empty()) {
    absl::StatusOr<std::unique_ptr<LogitsFileWriter>> file =
        LogitsFileWriter::Create(options.save_logits, header, tokens, options.overwrite);
    if (!file.ok()) return file.status();
    writer = *std::move(file);
  }

  Scorer scorer(session, header, std::move(base), std::move(writer));
  for (int64_t c = 0; c < chunks; ++c) {
    const absl::Span<const int32_t> chunk(tokens.data() + c * ctx, ctx);
    transformer.Rewind(0);
    // The last token is predicted, but predicts nothing.
    for (int64_t begin = 0; begin < ctx - 1;) {
      const int64_t end = std::min(begin + Transformer::kBatchTokens, ctx - 1);
      absl::Status status = transformer.Forward(chunk.subspan(begin, end - begin));
      if (!status.ok()) return status;
      for (int64_t t = std::max(begin, first); t < end;) {
        const int64_t n = std::min(end - t, transformer.max_logits());
        status = scorer.Add(transformer.Logits(t - begin, n), chunk.subspan(t + 1, n));
        if (!status.ok()) return status;
        t += n;
      }
      begin = end;
    }
    progress(c + 1, chunks);
  }
  if (absl::Status status = session.model().file().mapping().CheckUnchanged(); !status.ok())
    return status;
  return scorer.Finish();
}

}  // namespace quire
