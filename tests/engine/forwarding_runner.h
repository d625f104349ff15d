// Another runner, as it is: for what changes one thing about it.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>

#include "engine/model/model_runner.h"

namespace acuity::engine {

class ForwardingRunner : public ModelRunner {
 public:
  explicit ForwardingRunner(std::unique_ptr<ModelRunner> runner) : runner_(std::move(runner)) {}

  absl::Status Start(const Batch& batch) override { return runner_->Start(batch); }
  absl::Status Finish(StepOutput* output) override { return runner_->Finish(output); }
  void ZeroBlocks(std::span<const int32_t> blocks) override { runner_->ZeroBlocks(blocks); }
  bool draws() const override { return runner_->draws(); }
  const ModelSpec& spec() const override { return runner_->spec(); }
  const ModelOptions& options() const override { return runner_->options(); }
  int num_blocks() const override { return runner_->num_blocks(); }
  int64_t bytes_per_block() const override { return runner_->bytes_per_block(); }
  int64_t weight_bytes() const override { return runner_->weight_bytes(); }
  std::string device() const override { return runner_->device(); }
  int64_t saturated_values() const override { return runner_->saturated_values(); }
  absl::Status health() const override { return runner_->health(); }

 private:
  const std::unique_ptr<ModelRunner> runner_;
};

}  // namespace acuity::engine
