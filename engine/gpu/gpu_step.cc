// GpuDecoder's steps around their launches: to the device, back, and one beside another.
#include <algorithm>
#include <utility>

#include "engine/gpu/gpu_decoder.h"
#include "engine/loader/status_util.h"
#include "engine/model/validation.h"

namespace acuity::engine {
namespace {

constexpr int64_t kHalf = 2, kFloat = sizeof(float), kInt = sizeof(int32_t);

int64_t Aligned(int64_t bytes) { return (bytes + 15) / 16 * 16; }

// Null, or what is wrong with the tokens of a batch that follows a step of so many draws.
const char* DrawnTokenProblem(const Batch& batch, size_t draws_before) {
  const bool drawn = std::all_of(batch.tokens.begin(), batch.tokens.end(), [=](int32_t token) {
    return token > Batch::DrawnBefore(draws_before);
  });
  return drawn ? nullptr : "a token that no step before it draws";
}

}  // namespace

absl::Status GpuDecoder::Start(const Batch& batch) {
  ACUITY_RETURN_IF_ERROR(device_->health());
  if (begun_ - finished_ == Device::kMarks) {
    return absl::InternalError("two steps are begun, and neither is finished");
  }
  const size_t draws_before = begun_ > finished_ ? At(begun_ - 1).tokens : 0;
  const char* problem = BatchProblem(batch, *this);
  if (problem == nullptr) problem = DrawnTokenProblem(batch, draws_before);
  if (problem != nullptr) return absl::InternalError(Concat("the batch has ", problem));
  Slot& slot = At(begun_);
  slot.status = absl::OkStatus();
  slot.logits = batch.logit_rows.size();
  slot.tokens = batch.draws.size();
  slot.zeroed_blocks.clear();
  if (batch.num_rows() > 0) std::swap(slot.zeroed_blocks, zeroed_blocks_);
  const absl::Status status = Begin(batch, &slot);
  if (!status.ok()) {
    // What was enqueued before the failure may still use the pinned arrays.
    static_cast<void>(Settle());
    ZeroBlocks(slot.zeroed_blocks);
    return status;
  }
  ++begun_;
  return absl::OkStatus();
}

absl::Status GpuDecoder::Finish(StepOutput* output) {
  *output = {};
  if (begun_ == finished_) return absl::InternalError("no step is begun");
  Slot& slot = At(finished_);
  slot.status.Update(device_->Wait(MarkOf(finished_)));
  ++finished_;
  if (!slot.status.ok()) {
    ZeroBlocks(slot.zeroed_blocks);
    return slot.status;
  }
  Deliver(&slot, output);
  return absl::OkStatus();
}

absl::Status GpuDecoder::Settle() {
  const absl::Status status = device_->Synchronise();
  if (begun_ > finished_) At(begun_ - 1).status.Update(status);
  return status;
}

absl::Status GpuDecoder::Begin(const Batch& batch, Slot* slot) {
  StepInputs& inputs = slot->inputs;
  inputs.Plan(batch, slot->zeroed_blocks);
  if (batch.num_rows() > 0) {
    ACUITY_RETURN_IF_ERROR(Reserve(slot));
    inputs.Write(
        batch, slot->zeroed_blocks,
        begun_ > finished_ ? At(begun_ - 1).inputs.draw_places() : std::span<const int32_t>(),
        slot->pinned_inputs.As<std::byte>());
    ACUITY_RETURN_IF_ERROR(device_->CopyToDevice(
        inputs_.As<std::byte>(), slot->pinned_inputs.As<std::byte>(), inputs.offsets().end));
    step_ = &inputs;
    ACUITY_RETURN_IF_ERROR(EnqueueZeroing());
    ACUITY_RETURN_IF_ERROR(EnqueueOrReplay(inputs.shape()));
    ACUITY_RETURN_IF_ERROR(ReadBack(batch, slot));
  }
  return device_->Mark(MarkOf(begun_));
}

absl::Status GpuDecoder::Grow(int64_t bytes, bool pinned, DeviceMemory* memory) {
  if (bytes <= memory->bytes()) return absl::OkStatus();
  // The step that is begun may still use it.
  ACUITY_RETURN_IF_ERROR(Settle());
  if (!pinned) graphs_.clear();
  *memory = {};
  // Half as much again, so that a growing context does not allocate at every step.
  const int64_t grown = bytes + bytes / 2;
  ACUITY_ASSIGN_OR_RETURN(*memory, pinned ? device_->AllocatePinned("a step's arrays", grown)
                                          : device_->Allocate("a step's arrays", grown));
  return absl::OkStatus();
}

absl::Status GpuDecoder::Reserve(Slot* slot) {
  const StepShape& shape = slot->inputs.shape();
  const int64_t input_bytes = slot->inputs.offsets().end;
  const int64_t sum_bytes = shape.sums * static_cast<int64_t>(sizeof(kernels::RowSums));
  slot->tokens_at = Aligned(int64_t{shape.logit_rows} * spec_.vocab_size * kFloat);
  slot->sums_at = slot->tokens_at + Aligned(shape.draws * kInt);
  slot->masses_at = slot->sums_at + Aligned(sum_bytes);
  slot->saturated_at = slot->masses_at + Aligned(mass_bytes(shape));
  slot->hidden_at = slot->saturated_at + Aligned(saturated_.bytes());
  const int64_t output_bytes =
      slot->hidden_at + int64_t{shape.hidden_rows} * spec_.hidden_size * kHalf;
  ACUITY_RETURN_IF_ERROR(Grow(input_bytes, false, &inputs_));
  ACUITY_RETURN_IF_ERROR(Grow(input_bytes, true, &slot->pinned_inputs));
  ACUITY_RETURN_IF_ERROR(Grow(output_bytes, true, &slot->pinned_outputs));
  ACUITY_RETURN_IF_ERROR(Grow(mass_bytes(shape), false, &masses_));
  ACUITY_RETURN_IF_ERROR(Grow(sum_bytes, false, &sums_));
  return Grow(shape.workspace_floats * kFloat, false, &workspace_);
}

absl::Status GpuDecoder::ReadBack(const Batch& batch, Slot* slot) {
  const StepShape& shape = slot->inputs.shape();
  auto* to = slot->pinned_outputs.As<std::byte>();
  const auto copy = [&](int64_t at, const void* from, int64_t bytes) {
    return bytes == 0 ? absl::OkStatus() : device_->CopyToHost(to + at, from, bytes);
  };
  ACUITY_RETURN_IF_ERROR(ReadBackLogits(batch, *slot));
  const std::span<const int32_t> places = slot->inputs.draw_places();
  const int tokens = places.empty() ? 0 : places.back() + 1;
  ACUITY_RETURN_IF_ERROR(copy(slot->tokens_at, tokens_.As<void>(), tokens * kInt));
  ACUITY_RETURN_IF_ERROR(copy(slot->sums_at, sums_.As<void>(),
                              shape.sums * static_cast<int64_t>(sizeof(kernels::RowSums))));
  ACUITY_RETURN_IF_ERROR(copy(slot->masses_at, masses_.As<void>(), mass_bytes(shape)));
  ACUITY_RETURN_IF_ERROR(copy(slot->saturated_at, saturated_.As<void>(), saturated_.bytes()));
  const int64_t row_bytes = spec_.hidden_size * kHalf;
  return copy(slot->hidden_at, normed_.As<std::byte>() + shape.logit_rows * row_bytes,
              shape.hidden_rows * row_bytes);
}

// Not the padding's, and not what is drawn from. Neighbours are one copy: all, but in a bucket that
// serves both.
absl::Status GpuDecoder::ReadBackLogits(const Batch& batch, const Slot& slot) {
  const StepShape& shape = slot.inputs.shape();
  const int64_t row_bytes = int64_t{spec_.vocab_size} * kFloat;
  const std::vector<int32_t>& rows = batch.logit_rows;
  for (size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    const int place = shape.PlaceOf(rows[begin], begin);
    const auto adjoins = [&] {
      return shape.PlaceOf(rows[end], end) == place + static_cast<int>(end - begin);
    };
    end = begin + 1;
    while (end < rows.size() && adjoins()) ++end;
    ACUITY_RETURN_IF_ERROR(device_->CopyToHost(
        slot.pinned_outputs.As<std::byte>() + static_cast<int64_t>(begin) * row_bytes,
        logits_.As<std::byte>() + place * row_bytes,
        static_cast<int64_t>(end - begin) * row_bytes));
  }
  return absl::OkStatus();
}

void GpuDecoder::Deliver(Slot* slot, StepOutput* output) {
  const StepShape& shape = slot->inputs.shape();
  if (shape.rows == 0) return;
  auto* from = slot->pinned_outputs.As<std::byte>();
  output->logits = {reinterpret_cast<const float*>(from),
                    slot->logits * static_cast<size_t>(spec_.vocab_size)};
  auto* tokens = reinterpret_cast<int32_t*>(from + slot->tokens_at);
  size_t draw = 0;
  for (const int32_t place : slot->inputs.draw_places()) tokens[draw++] = tokens[place];
  output->tokens = {tokens, slot->tokens};
  output->sums = {reinterpret_cast<const kernels::RowSums*>(from + slot->sums_at),
                  static_cast<size_t>(shape.sums)};
  if (shape.spans > 0) {
    const auto* masses = reinterpret_cast<const uint64_t*>(from + slot->masses_at);
    slot->span_mass.resize(static_cast<size_t>(spec_.num_layers * shape.span_masses));
    std::transform(masses, masses + slot->span_mass.size(), slot->span_mass.begin(),
                   kernels::cuda::MassOf);
    output->span_mass = slot->span_mass;
  }
  if (saturated_.bytes() > 0) {
    saturated_values_ = *reinterpret_cast<const int64_t*>(from + slot->saturated_at);
  }
  const auto* hidden = reinterpret_cast<const uint16_t*>(from + slot->hidden_at);
  slot->hidden_states.resize(static_cast<size_t>(shape.hidden_rows) * spec_.hidden_size);
  std::transform(hidden, hidden + slot->hidden_states.size(), slot->hidden_states.begin(),
                 kernels::BFloat16ToFloat);
  output->hidden = slot->hidden_states;
}

void GpuDecoder::ZeroBlocks(std::span<const int32_t> blocks) {
  for (const int32_t block : blocks) {
    if (std::find(zeroed_blocks_.begin(), zeroed_blocks_.end(), block) == zeroed_blocks_.end()) {
      zeroed_blocks_.push_back(block);
    }
  }
}

}  // namespace acuity::engine
