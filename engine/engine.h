// The façade: one model, one engine thread, many requests.
//
//   Create -> ( Prepare -> Submit -> events... -> last event | Cancel )* -> Drain -> destruction
//
// Every method is thread-safe. The engine thread alone owns sequences and blocks; callers meet it
// at a bounded queue, and hear from it through their EventSink.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/model/model_runner.h"
#include "engine/report/attention_report.h"
#include "engine/report/span_report.h"
#include "engine/sample/sampler.h"
#include "engine/schedule/request.h"
#include "engine/schedule/sequence.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/dtype.h"

namespace acuity::engine {

struct EngineOptions {
  std::string name;              // as clients call the model
  std::string path;              // of the checkpoint
  std::string attention_policy;  // grammar of ApplyPolicy; empty: the checkpoint's own
  kernels::DType dtype = kernels::DType::kBFloat16;
  std::optional<kernels::DType> kv_dtype;  // of the KV cache; empty: dtype
  RunnerFactory make_runner;    // of the model's machine; empty: ModelRunner::Create, the CPU's
  int64_t kv_memory_bytes = 0;  // must hold one sequence of max_context tokens; 0: see ModelOptions
  int max_context = 0;          // 0: the model's trained length
  int block_size = 16;
  int max_batch_tokens = 512;
  int max_running = 64;
  int max_waiting = 256;
  int64_t max_waiting_tokens = 1 << 20;
  int report_min_tokens =
      1024;  // AttentionDetail::kAuto reports (SUMMARY) on prompts at least this long
  // As ModelOptions::on_load: how far Create has read the weights.
  std::function<void(int64_t done_bytes, int64_t total_bytes)> on_load;
};

// What one sequence has to say. Called on the engine thread: must not block, and may not call back
// into the engine.
struct TokenEvent {
  int sample = 0;
  TokenId token = -1;  // -1: no token (only the end, or scores)
  std::string text;  // text that this event releases; "" while it may be the start of a stop string
  float logprob = 0;  // with sampling.logprobs >= 0
  std::vector<TokenLogprob> top;
  FinishReason finish = FinishReason::kNone;  // else this sample's last event
};

struct RequestTimings {
  absl::Duration queue;  // arrival to first scheduled
  absl::Duration time_to_first_token;
  absl::Duration total;
};

// The end of a request, after the last event of every sample.
struct RequestResult {
  absl::Status status;  // why, if any sample ended in an error, a deadline or a cancellation
  int prompt_tokens = 0;
  int completion_tokens = 0;  // of all samples
  int cached_tokens = 0;
  int preemptions = 0;
  RequestTimings timings;
  AttentionReport prompt_attention;  // empty when not asked for
  AttentionReport generated_attention;
  SpanReport prompt_spans;     // of the prompt's last row; empty unless the request watches
  SpanReport generated_spans;  // of the rows of generated tokens
  std::vector<TokenLogprob> prompt_logprobs;  // scoring: [prompt_tokens], the first is {id, NaN}
  std::vector<float> embedding;               // [hidden_size] if the request pools
};

class EventSink {
 public:
  virtual ~EventSink() = default;
  // False: the caller does not keep up or is gone; the request is cancelled.
  virtual bool OnToken(TokenEvent event) = 0;
  virtual void OnResult(RequestResult result) = 0;  // exactly once, last
};

// What the engine tells whoever watches, once a step and once a request. Called on the engine
// thread, must not block.
struct StepStats {
  absl::Duration duration;  // since it began or, if that was later, since the one before ended
  int num_sequences = 0;
  int num_tokens = 0;
  int preempted = 0;
};
struct RequestStats {
  const Request* request = nullptr;
  const RequestResult* result = nullptr;
  FinishReason finish = FinishReason::kNone;  // of sample 0
  const AttentionReport* attention_summary =
      nullptr;  // of the prompt, layer bands; null if not measured
  const AttentionReport* attention_layers = nullptr;  // the same, each layer
};
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void OnStep(const StepStats& stats) = 0;
  virtual void OnInterTokenLatency(absl::Duration latency) = 0;
  virtual void OnRequest(const RequestStats& stats) = 0;
  virtual void OnRejected(
      const char* reason) = 0;  // "queue_full", "draining"; on the caller's thread
};

struct ModelInfo {
  std::string name, architecture, display_name, stored_type, dtype, kv_dtype, policy, isa;
  std::string device;  // ModelRunner::device
  int num_layers = 0, num_heads = 0, num_kv_heads = 0, head_dim = 0, vocab_size = 0,
      max_context = 0;
  int64_t parameters = 0, weight_bytes = 0, kv_bytes = 0;
  int block_size = 0, num_blocks = 0;
  double load_seconds = 0;
};

struct EngineGauges {
  int waiting = 0, running = 0;
  int held_blocks = 0, num_blocks = 0;
  int64_t computed_tokens = 0, generated_tokens = 0;  // since the start
  absl::Time last_progress;        // of the last step, or of the last moment without work
  int64_t saturated_values = 0;    // ModelRunner::saturated_values
  absl::Status health;             // ModelRunner::health
  AttentionReport last_attention;  // summary of the last prompt that was measured
};

class Engine {
 public:
  // Loads the model (seconds) and starts the engine thread. `pool` is shared by all engines and
  // outlives them; `observer` (may be null) outlives the engine.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(EngineOptions options,
                                                        kernels::ThreadPool* pool,
                                                        EngineObserver* observer);
  virtual ~Engine() = default;  // cancels what still runs

  virtual const Tokenizer& tokenizer() const = 0;
  virtual const ChatTemplate* chat_template() const = 0;  // null if the model has none
  virtual const ModelInfo& info() const = 0;
  virtual EngineGauges gauges() const = 0;

  // Checks what only the model knows: prompt + max_tokens within the context and the KV pool, ids
  // within the vocabulary. InvalidArgument "field: value, limit". max_tokens < 0 becomes what is
  // left of the context.
  virtual absl::Status Prepare(Request* request) const = 0;
  // Queues it. ResourceExhausted: queue full; Unavailable: draining. On an error the sink is not
  // called.
  virtual absl::Status Submit(std::shared_ptr<const Request> request,
                              std::shared_ptr<EventSink> sink) = 0;
  virtual void Cancel(RequestId id) = 0;
  // Refuses new requests from now on; returns when none is left, or at `deadline`, having cancelled
  // the rest (false).
  virtual bool Drain(absl::Time deadline) = 0;

  // Unique in the process.
  static RequestId NextRequestId();
};

}  // namespace acuity::engine
