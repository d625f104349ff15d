// From the scheduler's decision to the arrays that the model reads.
#pragma once

#include "engine/model/model_runner.h"
#include "engine/schedule/scheduler.h"

namespace acuity::engine {

// Fills `batch` from the plan, keeping the vectors' capacity. Rows follow the plan's order, and so
// do logit_rows, hidden_rows, draws and watched: of a request that watches spans, the prompt's last
// row and all after it. The batch points at the requests' spans. `runner_draws`: what
// ModelRunner::draws says; the runner is then asked for the tokens that nothing but the model's
// logits decides, if nobody wants to see those.
void BuildBatch(const StepPlan& plan, int block_size, bool runner_draws, Batch* batch);

}  // namespace acuity::engine
