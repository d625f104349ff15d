#include "engine/batch_builder.h"

#include <algorithm>

namespace acuity::engine {
namespace {

// As ActiveRequest and Sampler have it: bans end with min_tokens.
bool NeedsTokenOnly(const ScheduledSequence& s) {
  const SamplingParams& params = s.sequence->request->sampling;
  return s.samples && !params.changes_logits() && params.logprobs < 0 &&
         s.num_output() >= params.min_tokens;
}

kernels::SampleRow SampleRowOf(const ScheduledSequence& s) {
  const SamplingParams& params = s.sequence->request->sampling;
  return {.temperature = params.temperature,
          .top_k = params.top_k,
          .top_p = params.top_p,
          .min_p = params.min_p,
          .seed = s.sequence->seed(),
          .position = int64_t{s.first_token} + s.num_tokens};
}

}  // namespace

void BuildBatch(const StepPlan& plan, int block_size, bool runner_draws, Batch* batch) {
  batch->tokens.clear();
  batch->positions.clear();
  batch->slots.clear();
  batch->kv_len.clear();
  batch->logit_rows.clear();
  batch->hidden_rows.clear();
  batch->measured.clear();
  batch->draws.clear();
  batch->watched.clear();
  batch->qo_indptr.assign(1, 0);
  batch->block_table_stride = 0;
  for (const ScheduledSequence& s : plan.scheduled) {
    batch->block_table_stride =
        std::max(batch->block_table_stride, static_cast<int>(s.sequence->blocks.blocks().size()));
  }
  batch->block_tables.assign(plan.scheduled.size() * batch->block_table_stride, 0);

  for (size_t i = 0; i < plan.scheduled.size(); ++i) {
    const ScheduledSequence& s = plan.scheduled[i];
    const auto blocks = s.sequence->blocks.blocks();
    const int first_row = batch->num_rows();
    std::vector<int32_t>& wanted =
        s.sequence->request->pooling == Pooling::kNone ? batch->logit_rows : batch->hidden_rows;
    const bool drawn = runner_draws && NeedsTokenOnly(s);
    for (int r = 0; r < s.num_tokens; ++r) {
      const int position = s.first_token + r;
      batch->tokens.push_back(s.sampled_before >= 0
                                  ? Batch::DrawnBefore(static_cast<size_t>(s.sampled_before))
                                  : s.sequence->tokens[position]);
      batch->positions.push_back(position);
      batch->slots.push_back(static_cast<int64_t>(blocks[position / block_size].value) *
                                 block_size +
                             position % block_size);
      if (r >= s.first_logit_row && !drawn) wanted.push_back(first_row + r);
    }
    if (drawn) batch->draws.push_back({batch->num_rows() - 1, SampleRowOf(s)});
    batch->qo_indptr.push_back(batch->num_rows());
    batch->kv_len.push_back(s.first_token + s.num_tokens);
    int32_t* table = batch->block_tables.data() + i * batch->block_table_stride;
    for (size_t b = 0; b < blocks.size(); ++b) table[b] = blocks[b].value;
  }
}

}  // namespace acuity::engine
