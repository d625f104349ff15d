#include "engine/model/validation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace acuity::engine {
namespace {

absl::Status CheckOptions(const ModelOptions& options) {
  const std::pair<const char*, int> positive[] = {
      {"block_size", options.block_size},
      {"max_batch_tokens", options.max_batch_tokens},
      {"max_batch_sequences", options.max_batch_sequences},
      {"max_logit_rows", options.max_logit_rows}};
  for (const auto& [name, value] : positive) {
    if (value < 1) {
      return absl::InvalidArgumentError(absl::StrCat(name, " is ", value, "; at least 1"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRope(const RopeSpec& rope, int head_dim) {
  if (rope.rotary_dim < 0 || rope.rotary_dim > head_dim || rope.rotary_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("rotary_dim is ", rope.rotary_dim, "; even and at most head_dim, ", head_dim));
  }
  const size_t pairs = static_cast<size_t>(rope.rotary_dim / 2);
  if (!rope.factors.empty() && rope.factors.size() != pairs) {
    return absl::InvalidArgumentError(absl::StrCat("rope factors has ", rope.factors.size(),
                                                   " values; half of rotary_dim, ", pairs));
  }
  if (!rope.slopes.empty() && (rope.slopes.size() != pairs || rope.knee < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("rope slopes has ", rope.slopes.size(),
                                                   " values, half of rotary_dim is ", pairs,
                                                   "; its knee is ", rope.knee, ", at least 1"));
  }
  return absl::OkStatus();
}

// What a reader of a format guarantees, and what this decoder relies on.
absl::Status CheckSpec(const ModelSpec& spec) {
  const std::pair<const char*, int> positive[] = {
      {"num_layers", spec.num_layers}, {"hidden_size", spec.hidden_size},
      {"num_heads", spec.num_heads},   {"num_kv_heads", spec.num_kv_heads},
      {"head_dim", spec.head_dim},     {"ffn_size", spec.ffn_size},
      {"vocab_size", spec.vocab_size}};
  for (const auto& [name, value] : positive) {
    if (value < 1) {
      return absl::InvalidArgumentError(absl::StrCat(name, " is ", value, "; at least 1"));
    }
  }
  if (static_cast<int>(spec.layers.size()) != spec.num_layers) {
    return absl::InvalidArgumentError(absl::StrCat("num_layers is ", spec.num_layers, ", but ",
                                                   spec.layers.size(), " layers are described"));
  }
  for (const RopeSpec& rope : spec.ropes) {
    if (absl::Status status = CheckRope(rope, spec.head_dim); !status.ok()) return status;
  }
  const ExpertSpec& experts = spec.experts;
  if (experts.count > 0 && (experts.per_token < 1 || experts.per_token > experts.count)) {
    return absl::InvalidArgumentError(absl::StrCat("experts per token are ", experts.per_token,
                                                   "; from 1 to their number, ", experts.count));
  }
  if (spec.shared_norm && !spec.parallel_residual) {
    return absl::InvalidArgumentError("shared_norm needs parallel_residual");
  }
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const int rope = spec.layers[i].rope;
    if (rope < LayerSpec::kNoRope || rope >= static_cast<int>(spec.ropes.size())) {
      return absl::InvalidArgumentError(
          absl::StrCat("layer ", i, " has rope ", rope, " of ", spec.ropes.size()));
    }
    const LayerPolicy& policy = spec.layers[i].policy;
    const size_t heads = static_cast<size_t>(spec.num_heads);
    const bool needs_s = policy.kind == kernels::RowScaleKind::kSsmax ||
                         policy.kind == kernels::RowScaleKind::kSharpen;
    if ((needs_s && policy.s.size() != heads) || (!policy.b.empty() && policy.b.size() != heads)) {
      return absl::InvalidArgumentError(absl::StrCat("the policy of layer ", i, " has ",
                                                     policy.s.size(), " s and ", policy.b.size(),
                                                     " b; one per head, ", heads));
    }
  }
  return absl::OkStatus();
}

// Null, or what is wrong with batch.measured.
const char* MeasuredProblem(const Batch& batch, const ModelSpec& spec) {
  int32_t end = 0;
  int64_t at = 0;
  for (const kernels::MeasuredRows& m : batch.measured) {
    if (m.row_begin < end || m.row_end <= m.row_begin || m.row_end > batch.num_rows()) {
      return "measured rows that are not ascending rows of the batch";
    }
    const int64_t last_n = int64_t{m.first_n} + m.num_rows() - 1;
    if (m.first_n != batch.positions[m.row_begin] + 1 ||
        last_n != batch.positions[m.row_end - 1] + 1 || m.first_n < 1 ||
        last_n > kernels::kMostSummedKeys ||
        kernels::ContextBucket(m.first_n) != kernels::ContextBucket(last_n)) {
      return "measured rows that are not of one sequence and one context bucket";
    }
    if (m.at != at) return "measured rows whose sums do not follow those before";
    end = m.row_end;
    at += kernels::SumsOf(m, spec.num_layers, spec.num_heads);
  }
  return nullptr;
}

bool Holds(const std::vector<int32_t>& rows, int32_t row) {
  return std::binary_search(rows.begin(), rows.end(), row);
}

// Of the rows that are wanted: each once, for one purpose.
const char* OutputProblem(const Batch& batch, bool draws) {
  if (!batch.draws.empty() && !draws) return "draws for a runner that does not draw";
  for (const std::vector<int32_t>* wanted : {&batch.logit_rows, &batch.hidden_rows}) {
    int32_t previous = -1;
    for (int32_t row : *wanted) {
      if (row <= previous || row >= batch.num_rows()) {
        return "logit_rows or hidden_rows not ascending rows of the batch";
      }
      previous = row;
    }
  }
  for (int32_t row : batch.hidden_rows) {
    if (Holds(batch.logit_rows, row)) return "a row in both logit_rows and hidden_rows";
  }
  int32_t previous = -1;
  for (const Draw& draw : batch.draws) {
    if (draw.row <= previous || draw.row >= batch.num_rows()) {
      return "draws not of ascending rows of the batch";
    }
    if (Holds(batch.logit_rows, draw.row) || Holds(batch.hidden_rows, draw.row)) {
      return "a row both in draws and in logit_rows or hidden_rows";
    }
    previous = draw.row;
  }
  return nullptr;
}

}  // namespace

absl::Status CheckModel(const ModelSpec& spec, const ModelOptions& options) {
  absl::Status status = CheckOptions(options);
  if (status.ok()) status = CheckSpec(spec);
  if (!status.ok()) return status;
  const int most = (1 << kernels::kMostTermsLog2) / spec.num_heads;
  if (options.max_batch_tokens > most) {
    return absl::InvalidArgumentError(absl::StrCat("max_batch_tokens is ", options.max_batch_tokens,
                                                   "; at most ", most, " with ", spec.num_heads,
                                                   " heads, or sums of their attention wrap"));
  }
  return absl::OkStatus();
}

const char* BatchProblem(const Batch& batch, const ModelRunner& runner) {
  const ModelSpec& spec = runner.spec();
  const ModelOptions& options = runner.options();
  const int num_blocks = runner.num_blocks();
  const int rows = batch.num_rows(), seqs = batch.num_seqs();
  const size_t num_rows = static_cast<size_t>(rows), num_seqs = static_cast<size_t>(seqs);
  if (rows > options.max_batch_tokens) return "more rows than max_batch_tokens";
  if (seqs > options.max_batch_sequences) return "more sequences than max_batch_sequences";
  if (batch.logit_rows.size() + batch.draws.size() > static_cast<size_t>(options.max_logit_rows)) {
    return "more logit rows than max_logit_rows";
  }
  if (batch.positions.size() != num_rows || batch.slots.size() != num_rows) {
    return "tokens, positions and slots of different lengths";
  }
  if (batch.qo_indptr.size() != num_seqs + 1 || batch.qo_indptr.front() != 0 ||
      batch.qo_indptr.back() != rows) {
    return "qo_indptr does not cover the rows";
  }
  if (batch.block_table_stride < 0 ||
      batch.block_tables.size() != num_seqs * static_cast<size_t>(batch.block_table_stride)) {
    return "block_tables is not [num_seqs, block_table_stride]";
  }
  for (int i = 0; i < seqs; ++i) {
    const int new_rows = batch.qo_indptr[i + 1] - batch.qo_indptr[i];
    if (new_rows < 0 || batch.kv_len[i] < new_rows) return "kv_len below a sequence's new rows";
    const int64_t room = int64_t{batch.block_table_stride} * options.block_size;
    if (batch.kv_len[i] > room) return "kv_len beyond its block table";
    const int32_t* blocks = &batch.block_tables[i * static_cast<size_t>(batch.block_table_stride)];
    const int used = (batch.kv_len[i] + options.block_size - 1) / options.block_size;
    for (int b = 0; b < used; ++b) {
      if (blocks[b] < 0 || blocks[b] >= num_blocks) return "a block that does not exist";
    }
  }
  const int64_t num_slots = int64_t{num_blocks} * options.block_size;
  for (size_t i = 0; i < num_rows; ++i) {
    const bool drawn = runner.draws() && batch.tokens[i] <= Batch::DrawnBefore(0);
    if (!drawn && (batch.tokens[i] < 0 || batch.tokens[i] >= spec.vocab_size)) {
      return "an unknown token";
    }
    if (spec.learned_positions &&
        (batch.positions[i] < 0 || batch.positions[i] >= spec.max_context)) {
      return "a position beyond max_context";
    }
    if (batch.slots[i] < 0 || batch.slots[i] >= num_slots) return "a slot that does not exist";
  }
  if (const char* problem = OutputProblem(batch, runner.draws())) return problem;
  for (const kernels::WatchedRow& w : batch.watched) {
    if (w.seq < 0 || w.seq >= batch.num_seqs() || w.row < 0 ||
        w.row >= batch.qo_indptr[w.seq + 1] - batch.qo_indptr[w.seq]) {
      return "a watched row that does not exist";
    }
  }
  return MeasuredProblem(batch, spec);
}

}  // namespace acuity::engine
