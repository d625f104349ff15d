// From the scheduler's decision to the arrays that the model reads.
#pragma once

#include "engine/model/model_runner.h"
#include "engine/schedule/scheduler.h"

namespace acuity::engine {

// Fills `batch` from the plan, keeping the vectors' capacity. Rows follow the plan's order, and so
// do logit_rows, hidden_rows and draws. Nothing is measured or watched yet. Of a plan that follows
// a step that runs, which draws every token that it samples, those tokens are its draws.
// `runner_draws`: what ModelRunner::draws says; the runner is then asked for the tokens that
// nothing but the model's logits decides, if nobody wants to see those.
void BuildBatch(const StepPlan& plan, int block_size, bool runner_draws, Batch* batch);

}  // namespace acuity::engine
