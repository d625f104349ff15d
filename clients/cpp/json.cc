#include "clients/cpp/json.h"

#include <iostream>

namespace acuity::client {
namespace {

template <typename Buckets>
Json BucketsToJson(const Buckets& buckets) {
  Json out = Json::array();
  for (const v1::AttentionBucket& b : buckets) {
    out.push_back({{"n_min", b.n_min()},
                   {"n_max", b.n_max()},
                   {"rows", b.rows()},
                   {"entropy", b.entropy()},
                   {"normalized_entropy", b.normalized_entropy()},
                   {"effective_context", b.effective_context()},
                   {"effective_context_fraction", b.effective_context_fraction()},
                   {"max_probability", b.max_probability()}});
  }
  return out;
}

Json ToJson(const v1::TokenLogprob& t) {
  return {{"token_id", t.token_id()}, {"token", t.token()}, {"logprob", t.logprob()}};
}

}  // namespace

Json ToJson(const v1::AttentionReport& report) {
  if (report.layers_size() == 0) return nullptr;
  Json layers = Json::array();
  for (const v1::LayerAttention& layer : report.layers()) {
    Json l = {{"layer", layer.layer()}};
    if (layer.last_layer() != layer.layer()) l["last_layer"] = layer.last_layer();
    l["policy"] = layer.policy();
    l["buckets"] = BucketsToJson(layer.buckets());
    if (layer.heads_size() > 0) {
      Json heads = Json::array();
      for (const v1::HeadAttention& head : layer.heads()) {
        heads.push_back({{"head", head.head()}, {"buckets", BucketsToJson(head.buckets())}});
      }
      l["heads"] = std::move(heads);
    }
    layers.push_back(std::move(l));
  }
  return {{"layers", std::move(layers)}};
}

Json ToJson(const v1::SpanReport& report) {
  if (report.rows() == 0) return nullptr;
  Json layers = Json::array();
  for (const v1::LayerSpans& layer : report.layers()) {
    Json heads = Json::array();
    for (const v1::HeadSpans& head : layer.heads()) {
      heads.push_back({{"head", head.head()},
                       {"mass", std::vector<double>(head.mass().begin(), head.mass().end())},
                       {"normalized_entropy", head.normalized_entropy()},
                       {"effective_context", head.effective_context()},
                       {"max_probability", head.max_probability()}});
    }
    layers.push_back({{"layer", layer.layer()}, {"heads", std::move(heads)}});
  }
  return {{"rows", report.rows()}, {"layers", std::move(layers)}};
}

Json ToJson(const v1::Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens()},
          {"completion_tokens", usage.completion_tokens()},
          {"cached_tokens", usage.cached_tokens()}};
}

Json ToJson(const v1::Timings& t) {
  return {{"queue_seconds", t.queue_seconds()},
          {"time_to_first_token_seconds", t.time_to_first_token_seconds()},
          {"total_seconds", t.total_seconds()},
          {"preemptions", t.preemptions()}};
}

Json ToJson(const v1::Model& m) {
  return {{"name", m.name()},
          {"architecture", m.architecture()},
          {"display_name", m.display_name()},
          {"stored_type", m.stored_type()},
          {"dtype", m.dtype()},
          {"kv_dtype", m.kv_dtype()},
          {"attention_policy", m.attention_policy()},
          {"num_layers", m.num_layers()},
          {"num_heads", m.num_heads()},
          {"num_kv_heads", m.num_kv_heads()},
          {"head_dim", m.head_dim()},
          {"vocab_size", m.vocab_size()},
          {"max_context", m.max_context()},
          {"parameters", m.parameters()},
          {"weight_bytes", m.weight_bytes()},
          {"kv_bytes", m.kv_bytes()},
          {"block_size", m.block_size()},
          {"num_blocks", m.num_blocks()},
          {"chat", m.chat()},
          {"cpu_isa", m.cpu_isa()},
          {"status",
           {{"waiting", m.status().waiting()},
            {"running", m.status().running()},
            {"held_blocks", m.status().held_blocks()},
            {"computed_tokens", m.status().computed_tokens()},
            {"generated_tokens", m.status().generated_tokens()},
            {"last_attention", ToJson(m.status().last_attention())}}}};
}

Json ToJson(const v1::TokenLogprobs& logprobs) {
  Json out = ToJson(logprobs.token());
  Json top = Json::array();
  for (const v1::TokenLogprob& t : logprobs.top()) top.push_back(ToJson(t));
  out["top"] = std::move(top);
  return out;
}

void Print(const Json& json) {
  std::cout << json.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n" << std::flush;
}

}  // namespace acuity::client
