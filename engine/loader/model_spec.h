// What an architecture is, as data. One decoder (engine/model) is driven by it; readers of formats
// fill it. With x the residual stream, a layer is
//
//   a = Attention(pre_norm ? attention norm(x) : x)       x += residual_scale * [post norm](a)
//   f = FeedForward(pre_norm ? ffn norm(x) : x)           x += residual_scale * [post norm](f)
//
// where, with parallel_residual, f is computed from the x that a was.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/layer_ops.h"
#include "kernels/logit_policy.h"

namespace acuity::engine {

// The logit policy of one layer, owning its parameters.
struct LayerPolicy {
  kernels::RowScaleKind kind = kernels::RowScaleKind::kSoftmax;
  std::vector<float> s, b;  // [num_heads] for kSsmax and kSharpen; b may be empty
  float length = 1;
  float strength = 0;
  std::string name = "softmax";  // as reported: "softmax", "ssmax:s=0.17", ...

  kernels::LogitPolicy view() const {
    return {kind, s.empty() ? nullptr : s.data(), b.empty() ? nullptr : b.data(), length, strength};
  }
};

// A rotary embedding: angle(position, i) = position * theta^(-2i / rotary_dim) / factors[i]; what a
// position exceeds the knee by counts slopes[i] times.
struct RopeSpec {
  float theta = 10000;
  int rotary_dim = 0;  // even, at most head_dim; the rest of a head is left alone
  kernels::RopeStyle style = kernels::RopeStyle::kHalf;
  std::vector<float> factors;  // [rotary_dim / 2] divisors of the frequencies, or empty
  float magnitude = 1;         // cos and sin are multiplied by it (YaRN's attention factor)
  int knee = 0;                // > 0 with slopes
  std::vector<float> slopes;   // [rotary_dim / 2], each 0 to 1, or empty: there is no knee
};

// One decoder layer's attention.
struct LayerSpec {
  static constexpr int kNoRope = -1;
  int rope = 0;    // index into ModelSpec::ropes, or kNoRope
  int window = 0;  // 0: full causal attention
  LayerPolicy policy;
};

// Normalisation of Q and K before the rotary embedding, of the kind and epsilon of the other norms.
enum class QkNorm : uint8_t {
  kNone,
  kPerHead,     // each head by itself; all heads share a weight [head_dim]
  kOwnWeights,  // each head by itself; weights [heads, head_dim]
  kWhole,       // all heads of a row together; weight [heads * head_dim]
};

// A mixture of experts in place of the feed-forward network. The router's `per_token` largest
// logits choose; their softmax weighs the experts' outputs.
struct ExpertSpec {
  int count = 0;  // 0: an ordinary feed-forward network
  int per_token = 0;
  // Softmax over the chosen logits, so that the weights add up to 1; else over all.
  bool normalised = true;
  bool router_bias = false;
};

struct ModelSpec {
  std::string architecture;  // "llama"
  std::string display_name;  // general.name of the file
  int num_layers = 0;
  int hidden_size = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int ffn_size = 0;    // of one expert if there are any
  int vocab_size = 0;  // width of the logits
  // Trained length, or what a sidecar extends it to: prompts and outputs together may not exceed
  // it.
  int max_context = 0;

  kernels::NormKind norm = kernels::NormKind::kRms;
  bool norm_bias = false;
  float norm_epsilon = 1e-5f;
  bool pre_norm = true;
  bool post_norm = false;
  bool parallel_residual = false;
  bool shared_norm = false;  // the feed-forward network reads the attention's norm; parallel only

  std::vector<RopeSpec> ropes;
  bool learned_positions = false;  // a row per position is added to the embedding
  QkNorm qk_norm = QkNorm::kNone;
  bool qkv_bias = false;
  bool attention_out_bias = false;
  bool sinks = false;  // an extra logit per head in the softmax's denominator
  float softmax_scale = 0;
  float attention_softcap = 0;

  kernels::Activation activation = kernels::Activation::kSilu;
  bool gated_ffn = true;
  bool ffn_bias = false;
  ExpertSpec experts;

  float embedding_scale = 1;
  float residual_scale = 1;
  float logit_scale = 1;
  float logit_softcap = 0;  // 0: none; applied after logit_scale
  bool tied_embeddings = false;
  std::vector<LayerSpec> layers;  // [num_layers]
};

}  // namespace acuity::engine
