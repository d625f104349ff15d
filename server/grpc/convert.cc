#include "server/grpc/convert.h"

#include <cmath>
#include <random>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "engine/base/limits.h"

namespace acuity::server {
namespace {

using engine::SamplingParams;

// Stops at the first field that is wrong: absl::Status of it, "FIELD: value, limit".
class FieldChecker {
 public:
  template <typename T>
  void InRange(const char* field, T value, T low, T high) {
    if (!(value >= low && value <= high)) {  // NaN fails too
      Fail(field, absl::StrCat(value, " is not within ", low, " to ", high));
    }
  }
  void AtMost(const char* field, size_t size, size_t limit, const char* unit) {
    if (size > limit) Fail(field, absl::StrCat(size, " ", unit, ", the limit is ", limit));
  }
  void Fail(const char* field, const std::string& what) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(field, ": ", what));
  }
  const absl::Status& status() const { return status_; }

 private:
  absl::Status status_;
};

uint64_t DrawSeed() {
  static thread_local std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

void CheckStops(const v1::Sampling& s, FieldChecker& check) {
  check.AtMost("sampling.stop", s.stop_size(), engine::kMaxStopStrings, "strings");
  for (const std::string& stop : s.stop()) {
    if (stop.empty()) check.Fail("sampling.stop", "an empty string, at least 1 byte is needed");
    check.AtMost("sampling.stop", stop.size(), engine::kMaxStopBytes, "bytes");
  }
  check.AtMost("sampling.stop_token_ids", s.stop_token_ids_size(), engine::kMaxStopStrings, "ids");
  check.AtMost("sampling.logit_bias", s.logit_bias_size(), engine::kMaxLogitBias, "ids");
  for (const auto& [id, bias] : s.logit_bias()) {
    check.InRange("sampling.logit_bias", bias, -100.0f, 100.0f);
  }
}

absl::StatusOr<SamplingParams> ToSampling(const v1::Sampling& s) {
  FieldChecker check;
  SamplingParams p;
  if (s.has_temperature()) p.temperature = s.temperature();
  check.InRange("sampling.temperature", p.temperature, 0.0f, engine::kMaxTemperature);
  if (s.has_top_k()) p.top_k = s.top_k();
  check.InRange("sampling.top_k", p.top_k, 0, engine::kMaxContextTokens);
  if (s.has_top_p()) p.top_p = s.top_p();
  if (!(p.top_p > 0 && p.top_p <= 1)) {
    check.Fail("sampling.top_p", absl::StrCat(p.top_p, " is not above 0 and at most 1"));
  }
  if (s.has_min_p()) p.min_p = s.min_p();
  if (!(p.min_p >= 0 && p.min_p < 1)) {
    check.Fail("sampling.min_p", absl::StrCat(p.min_p, " is not at least 0 and below 1"));
  }
  if (s.has_repetition_penalty()) p.repetition_penalty = s.repetition_penalty();
  if (!(p.repetition_penalty > 0 && p.repetition_penalty <= engine::kMaxRepetitionPenalty)) {
    check.Fail("sampling.repetition_penalty",
               absl::StrCat(p.repetition_penalty, " is not above 0 and at most ",
                            engine::kMaxRepetitionPenalty));
  }
  if (s.has_presence_penalty()) p.presence_penalty = s.presence_penalty();
  check.InRange("sampling.presence_penalty", p.presence_penalty, -engine::kMaxPenalty,
                engine::kMaxPenalty);
  if (s.has_frequency_penalty()) p.frequency_penalty = s.frequency_penalty();
  check.InRange("sampling.frequency_penalty", p.frequency_penalty, -engine::kMaxPenalty,
                engine::kMaxPenalty);
  if (s.has_n()) p.n = s.n();
  check.InRange("sampling.n", p.n, 1, engine::kMaxSamples);
  p.max_tokens = s.has_max_tokens() ? s.max_tokens() : -1;
  if (s.has_max_tokens()) {
    check.InRange("sampling.max_tokens", p.max_tokens, 1, engine::kMaxContextTokens);
  }
  if (s.has_min_tokens()) p.min_tokens = s.min_tokens();
  check.InRange("sampling.min_tokens", p.min_tokens, 0, engine::kMaxContextTokens);
  if (s.has_logprobs()) {
    p.logprobs = s.logprobs();
    check.InRange("sampling.logprobs", p.logprobs, 0, engine::kMaxLogprobs);
  }
  CheckStops(s, check);
  if (!check.status().ok()) return check.status();

  p.seed = s.has_seed() ? s.seed() : DrawSeed();
  p.ignore_eos = s.ignore_eos();
  p.logit_bias.assign(s.logit_bias().begin(), s.logit_bias().end());
  p.stop_strings.assign(s.stop().begin(), s.stop().end());
  p.stop_tokens.assign(s.stop_token_ids().begin(), s.stop_token_ids().end());
  return p;
}

absl::StatusOr<engine::AttentionDetail> ToDetail(v1::AttentionDetail detail) {
  switch (detail) {
    case v1::ATTENTION_DETAIL_UNSPECIFIED:
      return engine::AttentionDetail::kAuto;
    case v1::ATTENTION_DETAIL_OFF:
      return engine::AttentionDetail::kOff;
    case v1::ATTENTION_DETAIL_SUMMARY:
      return engine::AttentionDetail::kSummary;
    case v1::ATTENTION_DETAIL_LAYERS:
      return engine::AttentionDetail::kLayers;
    case v1::ATTENTION_DETAIL_HEADS:
      return engine::AttentionDetail::kHeads;
    default:
      return absl::InvalidArgumentError(absl::StrCat("attention: ", static_cast<int>(detail),
                                                     " is not an AttentionDetail, 0 to 4"));
  }
}

// The length in front keeps ("a", "bc") and ("ab", "c") apart.
std::string CacheSalt(const std::string& tenant, const std::string& salt) {
  return absl::StrCat(tenant.size(), ":", tenant, salt);
}

// What Generate, Score and Embed have in common; the prompt is tokenised last, since it costs most.
template <typename Proto>
absl::StatusOr<engine::Request> CommonRequest(const Proto& proto,
                                              const grpc::ServerContextBase& context,
                                              const std::string& tenant, absl::Time arrival) {
  FieldChecker check;
  check.AtMost("request_id", proto.request_id().size(), engine::kMaxIdBytes, "bytes");
  check.InRange("priority", proto.priority(), -engine::kMaxPriority, engine::kMaxPriority);
  engine::Request request;
  if constexpr (requires { proto.watch(); }) {
    check.AtMost("watch", proto.watch_size(), engine::kMaxWatchedSpans, "spans");
    for (const v1::TokenSpan& span : proto.watch()) {
      request.watch.push_back({span.begin(), span.end()});
    }
  }
  if (!check.status().ok()) return check.status();
  absl::StatusOr<engine::AttentionDetail> detail = engine::AttentionDetail::kOff;
  if constexpr (requires { proto.attention(); }) detail = ToDetail(proto.attention());
  if (!detail.ok()) return detail.status();

  request.id = engine::Engine::NextRequestId();
  request.priority = proto.priority();
  request.arrival = arrival;
  request.attention = *detail;
  request.client_id = proto.request_id();
  request.tenant = tenant;
  const auto deadline = context.deadline();
  if (deadline != std::chrono::system_clock::time_point::max()) {
    request.deadline = absl::FromChrono(deadline);
  }
  return request;
}

engine::ChatMessage ToMessage(const v1::ChatMessage& from) {
  engine::ChatMessage to;
  to.role = from.role();
  if (from.has_content()) to.content = from.content();
  to.content_json = from.content_json();
  to.reasoning_content = from.reasoning_content();
  to.name = from.name();
  to.tool_call_id = from.tool_call_id();
  to.extra_json = from.extra_json();
  for (const v1::ToolCall& call : from.tool_calls()) {
    engine::ChatToolCall& out = to.tool_calls.emplace_back();
    out.id = call.id();
    out.name = call.name();
    out.arguments_json = call.arguments_json();
    if (call.has_arguments_text()) out.arguments_text = call.arguments_text();
  }
  return to;
}

absl::StatusOr<std::vector<engine::TokenId>> ChatTokens(const v1::Chat& chat,
                                                        const engine::Engine& engine,
                                                        ChatTurn turn) {
  if (engine.chat_template() == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("prompt.chat: model ", engine.info().name, " has no chat template"));
  }
  FieldChecker check;
  check.InRange("prompt.chat.messages", chat.messages_size(), 1, engine::kMaxChatMessages);
  check.AtMost("prompt.chat", chat.ByteSizeLong(), engine::kMaxPromptBytes, "bytes");
  for (const v1::ChatMessage& m : chat.messages()) {
    if (m.role().empty()) check.Fail("prompt.chat.messages.role", "it is empty");
    check.AtMost("prompt.chat.messages.tool_calls", m.tool_calls_size(), engine::kMaxToolCalls,
                 "calls");
  }
  if (!check.status().ok()) return check.status();
  engine::ChatInput input;
  for (const v1::ChatMessage& m : chat.messages()) input.messages.push_back(ToMessage(m));
  input.tools_json = chat.tools_json();
  input.variables_json = chat.variables_json();
  input.add_generation_prompt = turn == ChatTurn::kNext;
  input.continue_final_message = turn == ChatTurn::kContinueLast;
  auto segments = engine.chat_template()->Render(input);
  if (!segments.ok()) {
    const absl::string_view message = segments.status().message();
    const bool of_template = absl::StartsWith(message, "chat template");
    return absl::InvalidArgumentError(
        absl::StrCat(of_template ? "prompt.chat: " : "prompt.chat.", message));
  }
  return engine.tokenizer().EncodeSegments(*segments);
}

void Fill(const engine::AttentionBucket& from, v1::AttentionBucket* to) {
  to->set_n_min(from.n_min);
  to->set_n_max(from.n_max);
  to->set_rows(from.rows);
  to->set_entropy(from.entropy);
  to->set_normalized_entropy(from.normalized_entropy);
  to->set_effective_context(from.effective_context);
  to->set_effective_context_fraction(from.effective_context_fraction);
  to->set_max_probability(from.max_probability);
}

void Fill(const engine::AttentionReport& from, v1::AttentionReport* to) {
  for (const engine::LayerReport& layer : from.layers) {
    v1::LayerAttention* out = to->add_layers();
    out->set_layer(layer.layer);
    out->set_last_layer(layer.last_layer);
    out->set_policy(layer.policy);
    for (const engine::AttentionBucket& bucket : layer.buckets) Fill(bucket, out->add_buckets());
    for (const engine::HeadReport& head : layer.heads) {
      v1::HeadAttention* h = out->add_heads();
      h->set_head(head.head);
      for (const engine::AttentionBucket& bucket : head.buckets) Fill(bucket, h->add_buckets());
    }
  }
}

void Fill(const engine::SpanReport& from, v1::SpanReport* to) {
  to->set_rows(from.rows);
  for (size_t layer = 0; layer < from.layers.size(); ++layer) {
    v1::LayerSpans* out = to->add_layers();
    out->set_layer(static_cast<int>(layer));
    for (size_t head = 0; head < from.layers[layer].size(); ++head) {
      const engine::HeadSpans& spans = from.layers[layer][head];
      v1::HeadSpans* h = out->add_heads();
      h->set_head(static_cast<int>(head));
      h->mutable_mass()->Assign(spans.mass.begin(), spans.mass.end());
      h->set_normalized_entropy(spans.normalized_entropy);
      h->set_effective_context(spans.effective_context);
      h->set_max_probability(spans.max_probability);
    }
  }
}

template <typename Proto>
void FillUse(const engine::RequestResult& result, Proto* out) {
  out->mutable_usage()->set_prompt_tokens(result.prompt_tokens);
  out->mutable_usage()->set_completion_tokens(result.completion_tokens);
  out->mutable_usage()->set_cached_tokens(result.cached_tokens);
  v1::Timings* timings = out->mutable_timings();
  timings->set_queue_seconds(absl::ToDoubleSeconds(result.timings.queue));
  timings->set_time_to_first_token_seconds(
      absl::ToDoubleSeconds(result.timings.time_to_first_token));
  timings->set_total_seconds(absl::ToDoubleSeconds(result.timings.total));
  timings->set_preemptions(result.preemptions);
}

template <typename Proto>
void FillCommon(const engine::RequestResult& result, Proto* out) {
  FillUse(result, out);
  if (!result.prompt_attention.empty()) {
    Fill(result.prompt_attention, out->mutable_prompt_attention());
  }
  if (result.prompt_spans.rows > 0) Fill(result.prompt_spans, out->mutable_prompt_spans());
}

}  // namespace

absl::StatusOr<std::vector<engine::TokenId>> ToTokens(const v1::Prompt& prompt,
                                                      const engine::Engine& engine, ChatTurn turn) {
  switch (prompt.input_case()) {
    case v1::Prompt::kText: {
      if (prompt.text().empty()) return absl::InvalidArgumentError("prompt.text: it is empty");
      if (prompt.text().size() > engine::kMaxPromptBytes) {
        return absl::InvalidArgumentError(absl::StrCat("prompt.text: ", prompt.text().size(),
                                                       " bytes, the limit is ",
                                                       engine::kMaxPromptBytes));
      }
      auto ids = engine.tokenizer().Encode(prompt.text(), {});
      if (!ids.ok()) {
        return absl::InvalidArgumentError(absl::StrCat("prompt.text: ", ids.status().message()));
      }
      return ids;
    }
    case v1::Prompt::kChat:
      return ChatTokens(prompt.chat(), engine, turn);
    case v1::Prompt::kTokenIds:
      return std::vector<engine::TokenId>(prompt.token_ids().ids().begin(),
                                          prompt.token_ids().ids().end());
    case v1::Prompt::INPUT_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("prompt: none of text, chat and token_ids is set");
}

absl::StatusOr<engine::Request> ToRequest(const v1::GenerateRequest& proto,
                                          const engine::Engine& engine,
                                          const grpc::ServerContextBase& context,
                                          const std::string& tenant, absl::Time arrival) {
  absl::StatusOr<engine::Request> request = CommonRequest(proto, context, tenant, arrival);
  if (!request.ok()) return request;
  FieldChecker check;
  check.AtMost("tenant", proto.tenant().size(), engine::kMaxIdBytes, "bytes");
  check.AtMost("cache_salt", proto.cache_salt().size(), engine::kMaxIdBytes, "bytes");
  if (!check.status().ok()) return check.status();
  if (tenant.empty()) {
    request->tenant = proto.tenant();  // nobody checks it: it only keeps caches apart
  } else if (!proto.tenant().empty() && proto.tenant() != tenant) {
    return absl::PermissionDeniedError("tenant: the token is of another tenant");
  }
  request->cache_salt = CacheSalt(request->tenant, proto.cache_salt());
  absl::StatusOr<SamplingParams> sampling = ToSampling(proto.sampling());
  if (!sampling.ok()) return sampling.status();
  request->sampling = *std::move(sampling);
  auto tokens =
      ToTokens(proto.prompt(), engine,
               proto.continue_final_message() ? ChatTurn::kContinueLast : ChatTurn::kNext);
  if (!tokens.ok()) return tokens.status();
  request->prompt = *std::move(tokens);
  const absl::Status prepared = engine.Prepare(&*request);
  if (!prepared.ok()) return prepared;
  return request;
}

absl::StatusOr<engine::Request> ToRequest(const v1::ScoreRequest& proto,
                                          const engine::Engine& engine,
                                          const grpc::ServerContextBase& context,
                                          const std::string& tenant, absl::Time arrival) {
  absl::StatusOr<engine::Request> request = CommonRequest(proto, context, tenant, arrival);
  if (!request.ok()) return request;
  request->score = true;
  request->cache_salt = CacheSalt(tenant, "");
  request->sampling.max_tokens = 0;
  auto tokens = ToTokens(proto.prompt(), engine, ChatTurn::kComplete);
  if (!tokens.ok()) return tokens.status();
  request->prompt = *std::move(tokens);
  const absl::Status prepared = engine.Prepare(&*request);
  if (!prepared.ok()) return prepared;
  return request;
}

absl::StatusOr<engine::Request> ToRequest(const v1::EmbedRequest& proto, int index,
                                          const engine::Engine& engine,
                                          const grpc::ServerContextBase& context,
                                          const std::string& tenant, absl::Time arrival) {
  FieldChecker check;
  check.InRange("prompts", proto.prompts_size(), 1, engine::kMaxEmbedPrompts);
  check.AtMost("cache_salt", proto.cache_salt().size(), engine::kMaxIdBytes, "bytes");
  if (proto.pooling() < v1::POOLING_UNSPECIFIED || proto.pooling() > v1::POOLING_MEAN) {
    check.Fail("pooling", absl::StrCat(static_cast<int>(proto.pooling()),
                                       " is not a Pooling, 0 to ", int{v1::POOLING_MEAN}));
  }
  if (!check.status().ok()) return check.status();
  absl::StatusOr<engine::Request> request = CommonRequest(proto, context, tenant, arrival);
  if (!request.ok()) return request;
  request->pooling =
      proto.pooling() == v1::POOLING_MEAN ? engine::Pooling::kMean : engine::Pooling::kLast;
  request->cache_salt = CacheSalt(tenant, proto.cache_salt());
  request->sampling.max_tokens = 0;
  auto tokens = ToTokens(proto.prompts(index), engine, ChatTurn::kComplete);
  absl::Status status = tokens.status();
  if (status.ok()) {
    request->prompt = *std::move(tokens);
    status = engine.Prepare(&*request);
  }
  if (status.ok()) return request;
  absl::string_view message = status.message();
  if (!absl::ConsumePrefix(&message, "prompt")) return status;
  return absl::Status(status.code(), absl::StrCat("prompts[", index, "]", message));
}

v1::Delta ToProto(const engine::TokenEvent& event, const engine::Tokenizer& tokenizer,
                  bool logprobs) {
  v1::Delta delta;
  delta.set_sample(event.sample);
  delta.set_text(event.text);
  if (event.token >= 0) delta.add_token_ids(event.token);
  if (logprobs && event.token >= 0) {
    const auto fill = [&](engine::TokenId id, float logprob, v1::TokenLogprob* to) {
      to->set_token_id(id);
      to->set_logprob(logprob);
      to->set_token(std::string(tokenizer.TokenBytes(id, /*with_special=*/true)));
    };
    v1::TokenLogprobs* out = delta.add_logprobs();
    fill(event.token, event.logprob, out->mutable_token());
    for (const engine::TokenLogprob& top : event.top) fill(top.token, top.logprob, out->add_top());
  }
  if (event.finish == engine::FinishReason::kStop) delta.set_finish_reason(v1::FINISH_REASON_STOP);
  if (event.finish == engine::FinishReason::kLength) {
    delta.set_finish_reason(v1::FINISH_REASON_LENGTH);
  }
  return delta;
}

v1::GenerateResult ToProto(const engine::RequestResult& result, const engine::Request& request) {
  v1::GenerateResult out;
  out.set_request_id(request.client_id);
  out.set_seed(request.sampling.seed);
  FillCommon(result, &out);
  if (!result.generated_attention.empty()) {
    Fill(result.generated_attention, out.mutable_generated_attention());
  }
  if (result.generated_spans.rows > 0) Fill(result.generated_spans, out.mutable_generated_spans());
  return out;
}

v1::ScoreResponse ToScoreResponse(const engine::RequestResult& result) {
  v1::ScoreResponse out;
  for (const engine::TokenLogprob& scored : result.prompt_logprobs) {
    out.add_token_ids(scored.token);
    out.add_logprobs(scored.logprob);
  }
  FillCommon(result, &out);
  return out;
}

v1::Embedding ToEmbedding(const engine::RequestResult& result, bool normalize) {
  v1::Embedding out;
  double length = 1;
  if (normalize) {
    double squares = 0;
    for (const float x : result.embedding) squares += double{x} * x;
    if (squares > 0) length = std::sqrt(squares);
  }
  for (const float x : result.embedding) out.add_values(static_cast<float>(x / length));
  FillUse(result, &out);
  return out;
}

v1::Model ToProto(const engine::Engine& engine) {
  const engine::ModelInfo& info = engine.info();
  v1::Model out;
  out.set_name(info.name);
  out.set_architecture(info.architecture);
  out.set_display_name(info.display_name);
  out.set_stored_type(info.stored_type);
  out.set_dtype(info.dtype);
  out.set_kv_dtype(info.kv_dtype);
  out.set_attention_policy(info.policy);
  out.set_num_layers(info.num_layers);
  out.set_num_heads(info.num_heads);
  out.set_num_kv_heads(info.num_kv_heads);
  out.set_head_dim(info.head_dim);
  out.set_vocab_size(info.vocab_size);
  out.set_max_context(info.max_context);
  out.set_parameters(info.parameters);
  out.set_weight_bytes(info.weight_bytes);
  out.set_kv_bytes(info.kv_bytes);
  out.set_block_size(info.block_size);
  out.set_num_blocks(info.num_blocks);
  out.set_chat(engine.chat_template() != nullptr);
  out.set_cpu_isa(info.isa);
  const engine::EngineGauges gauges = engine.gauges();
  v1::ModelStatus* status = out.mutable_status();
  status->set_waiting(gauges.waiting);
  status->set_running(gauges.running);
  status->set_held_blocks(gauges.held_blocks);
  status->set_computed_tokens(gauges.computed_tokens);
  status->set_generated_tokens(gauges.generated_tokens);
  if (!gauges.last_attention.empty()) Fill(gauges.last_attention, status->mutable_last_attention());
  return out;
}

}  // namespace acuity::server
