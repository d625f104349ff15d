// From the scheduler's decision to the arrays that the model reads.
#pragma once

#include "engine/model/model_runner.h"
#include "engine/schedule/scheduler.h"

namespace acuity::engine {

// Fills `batch` from the plan, keeping the vectors' capacity. Rows follow the plan's order, and so
// do logit_rows and hidden_rows. Nothing is measured or watched yet.
void BuildBatch(const StepPlan& plan, int block_size, Batch* batch);

}  // namespace acuity::engine
