#include "engine/loader/model_tensors.h"

#include <utility>

#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

class TensorList {
 public:
  explicit TensorList(const ModelSpec& spec) : spec_(spec) {}

  void Vector(std::string name, int64_t size) { all_.push_back({std::move(name), 1, size}); }
  void Matrix(const std::string& stem, int64_t rows, int64_t columns, bool bias) {
    all_.push_back({stem + ".weight", rows, columns});
    if (bias) Vector(stem + ".bias", rows);
  }
  void Norm(const std::string& stem) {
    Vector(stem + ".weight", spec_.hidden_size);
    if (spec_.norm_bias) Vector(stem + ".bias", spec_.hidden_size);
  }

  void Attention(const std::string& prefix) {
    const int64_t hidden = spec_.hidden_size, dim = spec_.head_dim;
    const int64_t q_size = spec_.num_heads * dim, kv_size = spec_.num_kv_heads * dim;
    if (spec_.pre_norm) Norm(prefix + "attn_norm");
    Matrix(prefix + "attn_q", q_size, hidden, spec_.qkv_bias);
    Matrix(prefix + "attn_k", kv_size, hidden, spec_.qkv_bias);
    Matrix(prefix + "attn_v", kv_size, hidden, spec_.qkv_bias);
    Matrix(prefix + "attn_output", hidden, q_size, spec_.attention_out_bias);
    if (spec_.qk_norm != QkNorm::kNone) {
      const bool one_head = spec_.qk_norm == QkNorm::kPerHead;
      Vector(prefix + "attn_q_norm.weight", one_head ? dim : q_size);
      Vector(prefix + "attn_k_norm.weight", one_head ? dim : kv_size);
    }
    if (spec_.sinks) Vector(prefix + "attn_sinks.weight", spec_.num_heads);
    if (spec_.post_norm) Norm(prefix + "post_attention_norm");
  }

  void FeedForward(const std::string& prefix) {
    const int64_t hidden = spec_.hidden_size, ffn = spec_.ffn_size;
    const int64_t experts = spec_.experts.count;
    if (spec_.pre_norm && !spec_.shared_norm) Norm(prefix + "ffn_norm");
    const std::string suffix = experts > 0 ? "_exps" : "";
    const int64_t copies = experts > 0 ? experts : 1;
    if (experts > 0) Matrix(prefix + "ffn_gate_inp", experts, hidden, spec_.experts.router_bias);
    if (spec_.gated_ffn) {
      Matrix(prefix + "ffn_gate" + suffix, copies * ffn, hidden, spec_.ffn_bias);
    }
    Matrix(prefix + "ffn_up" + suffix, copies * ffn, hidden, spec_.ffn_bias);
    Matrix(prefix + "ffn_down" + suffix, copies * hidden, ffn, spec_.ffn_bias);
    if (spec_.post_norm) Norm(prefix + "post_ffw_norm");
  }

  std::vector<ModelTensor> Take() { return std::move(all_); }

 private:
  const ModelSpec& spec_;
  std::vector<ModelTensor> all_;
};

}  // namespace

std::vector<ModelTensor> ModelTensors(const ModelSpec& spec) {
  TensorList list(spec);
  list.Matrix("token_embd", spec.vocab_size, spec.hidden_size, false);
  if (spec.learned_positions) {
    list.Matrix("position_embd", spec.max_context, spec.hidden_size, false);
  }
  for (int layer = 0; layer < spec.num_layers; ++layer) {
    const std::string prefix = Concat("blk.", layer, ".");
    list.Attention(prefix);
    list.FeedForward(prefix);
  }
  list.Norm("output_norm");
  if (!spec.tied_embeddings) list.Matrix("output", spec.vocab_size, spec.hidden_size, false);
  return list.Take();
}

}  // namespace acuity::engine
