// What the architectures call their tensors. Included by hf_architectures.cc only.
#pragma once

#include <array>
#include <cstddef>

#include "engine/loader/hf_tensors.h"

namespace acuity::engine {

// Parts one after the other; the first rule that fits a tensor is taken.
template <size_t... kSizes>
constexpr auto JoinRules(const HfTensorRule (&... parts)[kSizes]) {
  std::array<HfTensorRule, (kSizes + ...)> joined{};
  size_t at = 0;
  const auto append = [&](const auto& part) {
    for (const HfTensorRule& rule : part) joined[at++] = rule;
  };
  (append(parts), ...);
  return joined;
}

inline constexpr HfTensorRule kEnds[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
};
inline constexpr HfTensorRule kAttention[] = {
    {"attn_q", "model.layers.*.self_attn.q_proj"},
    {"attn_k", "model.layers.*.self_attn.k_proj"},
    {"attn_v", "model.layers.*.self_attn.v_proj"},
    {"attn_output", "model.layers.*.self_attn.o_proj"},
    {"attn_q_norm", "model.layers.*.self_attn.q_norm"},
    {"attn_k_norm", "model.layers.*.self_attn.k_norm"},
};
inline constexpr HfTensorRule kPreNorms[] = {
    {"attn_norm", "model.layers.*.input_layernorm"},
    {"ffn_norm", "model.layers.*.post_attention_layernorm"},
};
inline constexpr HfTensorRule kGatedFfn[] = {
    {"ffn_gate", "model.layers.*.mlp.gate_proj"},
    {"ffn_up", "model.layers.*.mlp.up_proj"},
    {"ffn_down", "model.layers.*.mlp.down_proj"},
};
inline constexpr auto kLlamaNames = JoinRules(kEnds, kAttention, kPreNorms, kGatedFfn);

inline constexpr HfTensorRule kQwen3Experts[] = {
    {"ffn_gate_inp", "model.layers.*.mlp.gate"},
    {"ffn_gate_exps", "model.layers.*.mlp.experts.#.gate_proj", HfLayout::kExperts},
    {"ffn_up_exps", "model.layers.*.mlp.experts.#.up_proj", HfLayout::kExperts},
    {"ffn_down_exps", "model.layers.*.mlp.experts.#.down_proj", HfLayout::kExperts},
};
inline constexpr auto kQwen3MoeNames = JoinRules(kEnds, kAttention, kPreNorms, kQwen3Experts);

inline constexpr HfTensorRule kMixtralExperts[] = {
    {"ffn_gate_inp", "model.layers.*.block_sparse_moe.gate"},
    {"ffn_gate_exps", "model.layers.*.block_sparse_moe.experts.#.w1", HfLayout::kExperts},
    {"ffn_up_exps", "model.layers.*.block_sparse_moe.experts.#.w3", HfLayout::kExperts},
    {"ffn_down_exps", "model.layers.*.block_sparse_moe.experts.#.w2", HfLayout::kExperts},
};
inline constexpr auto kMixtralNames = JoinRules(kEnds, kAttention, kPreNorms, kMixtralExperts);

inline constexpr HfTensorRule kGptOssParts[] = {
    {"attn_sinks.weight", "model.layers.*.self_attn.sinks"},
    {"ffn_gate_inp", "model.layers.*.mlp.router"},
    {"ffn_gate_exps.weight", "model.layers.*.mlp.experts.gate_up_proj", HfLayout::kExpertPairs},
    {"ffn_up_exps.weight", "model.layers.*.mlp.experts.gate_up_proj", HfLayout::kExpertPairs},
    {"ffn_gate_exps.bias", "model.layers.*.mlp.experts.gate_up_proj_bias", HfLayout::kExpertPairs},
    {"ffn_up_exps.bias", "model.layers.*.mlp.experts.gate_up_proj_bias", HfLayout::kExpertPairs},
    {"ffn_down_exps.weight", "model.layers.*.mlp.experts.down_proj", HfLayout::kExpertMatrices},
    {"ffn_down_exps.bias", "model.layers.*.mlp.experts.down_proj_bias", HfLayout::kExpertMatrices},
};
inline constexpr auto kGptOssNames = JoinRules(kEnds, kAttention, kPreNorms, kGptOssParts);

// Gemma's norms hold their weights minus 1.
inline constexpr HfTensorRule kGemmaNorms[] = {
    {"output_norm", "model.norm", HfLayout::kWhole, 1},
    {"attn_q_norm", "model.layers.*.self_attn.q_norm", HfLayout::kWhole, 1},
    {"attn_k_norm", "model.layers.*.self_attn.k_norm", HfLayout::kWhole, 1},
    {"attn_norm", "model.layers.*.input_layernorm", HfLayout::kWhole, 1},
};
inline constexpr HfTensorRule kGemmaFfnNorm[] = {
    {"ffn_norm", "model.layers.*.post_attention_layernorm", HfLayout::kWhole, 1},
};
inline constexpr HfTensorRule kGemma2Norms[] = {
    {"post_attention_norm", "model.layers.*.post_attention_layernorm", HfLayout::kWhole, 1},
    {"ffn_norm", "model.layers.*.pre_feedforward_layernorm", HfLayout::kWhole, 1},
    {"post_ffw_norm", "model.layers.*.post_feedforward_layernorm", HfLayout::kWhole, 1},
};
inline constexpr auto kGemmaNames =
    JoinRules(kGemmaNorms, kGemmaFfnNorm, kEnds, kAttention, kGatedFfn);
inline constexpr auto kGemma2Names =
    JoinRules(kGemmaNorms, kGemma2Norms, kEnds, kAttention, kGatedFfn);

inline constexpr HfTensorRule kPhi3Stacks[] = {
    {"attn_q", "model.layers.*.self_attn.qkv_proj", HfLayout::kStacked},
    {"attn_k", "model.layers.*.self_attn.qkv_proj", HfLayout::kStacked},
    {"attn_v", "model.layers.*.self_attn.qkv_proj", HfLayout::kStacked},
    {"ffn_gate", "model.layers.*.mlp.gate_up_proj", HfLayout::kStacked},
    {"ffn_up", "model.layers.*.mlp.gate_up_proj", HfLayout::kStacked},
};
inline constexpr auto kPhi3Names = JoinRules(kPhi3Stacks, kEnds, kAttention, kPreNorms, kGatedFfn);

inline constexpr HfTensorRule kOlmo2Norms[] = {
    {"post_attention_norm", "model.layers.*.post_attention_layernorm"},
    {"post_ffw_norm", "model.layers.*.post_feedforward_layernorm"},
};
inline constexpr auto kOlmo2Names = JoinRules(kEnds, kAttention, kOlmo2Norms, kGatedFfn);

inline constexpr HfTensorRule kCohereHeadNorms[] = {
    {"attn_q_norm", "model.layers.*.self_attn.q_norm", HfLayout::kHeadRows},
    {"attn_k_norm", "model.layers.*.self_attn.k_norm", HfLayout::kHeadRows},
};
inline constexpr auto kCohereNames =
    JoinRules(kCohereHeadNorms, kEnds, kAttention, kPreNorms, kGatedFfn);

inline constexpr HfTensorRule kStableLmHeadNorms[] = {
    {"attn_q_norm", "model.layers.*.self_attn.q_layernorm.norms.#", HfLayout::kHeads},
    {"attn_k_norm", "model.layers.*.self_attn.k_layernorm.norms.#", HfLayout::kHeads},
};
inline constexpr auto kStableLmNames =
    JoinRules(kStableLmHeadNorms, kEnds, kAttention, kPreNorms, kGatedFfn);

inline constexpr HfTensorRule kPlainFfn[] = {
    {"ffn_up", "model.layers.*.mlp.c_fc"},
    {"ffn_down", "model.layers.*.mlp.c_proj"},
};
inline constexpr auto kStarCoder2Names = JoinRules(kEnds, kAttention, kPreNorms, kPlainFfn);

inline constexpr HfTensorRule kGpt2Names[] = {
    {"token_embd", "transformer.wte"},
    {"position_embd", "transformer.wpe"},
    {"output_norm", "transformer.ln_f"},
    {"output", "lm_head"},
    {"attn_norm", "transformer.h.*.ln_1"},
    {"attn_q.weight", "transformer.h.*.attn.c_attn.weight", HfLayout::kTransposedStacked},
    {"attn_k.weight", "transformer.h.*.attn.c_attn.weight", HfLayout::kTransposedStacked},
    {"attn_v.weight", "transformer.h.*.attn.c_attn.weight", HfLayout::kTransposedStacked},
    {"attn_q.bias", "transformer.h.*.attn.c_attn.bias", HfLayout::kStacked},
    {"attn_k.bias", "transformer.h.*.attn.c_attn.bias", HfLayout::kStacked},
    {"attn_v.bias", "transformer.h.*.attn.c_attn.bias", HfLayout::kStacked},
    {"attn_output.weight", "transformer.h.*.attn.c_proj.weight", HfLayout::kTransposed},
    {"attn_output.bias", "transformer.h.*.attn.c_proj.bias"},
    {"ffn_norm", "transformer.h.*.ln_2"},
    {"ffn_up.weight", "transformer.h.*.mlp.c_fc.weight", HfLayout::kTransposed},
    {"ffn_up.bias", "transformer.h.*.mlp.c_fc.bias"},
    {"ffn_down.weight", "transformer.h.*.mlp.c_proj.weight", HfLayout::kTransposed},
    {"ffn_down.bias", "transformer.h.*.mlp.c_proj.bias"},
};

inline constexpr HfTensorRule kGptNeoXNames[] = {
    {"token_embd", "gpt_neox.embed_in"},
    {"output_norm", "gpt_neox.final_layer_norm"},
    {"output", "embed_out"},
    {"attn_norm", "gpt_neox.layers.*.input_layernorm"},
    {"attn_q", "gpt_neox.layers.*.attention.query_key_value", HfLayout::kByHead},
    {"attn_k", "gpt_neox.layers.*.attention.query_key_value", HfLayout::kByHead},
    {"attn_v", "gpt_neox.layers.*.attention.query_key_value", HfLayout::kByHead},
    {"attn_output", "gpt_neox.layers.*.attention.dense"},
    {"ffn_norm", "gpt_neox.layers.*.post_attention_layernorm"},
    {"ffn_up", "gpt_neox.layers.*.mlp.dense_h_to_4h"},
    {"ffn_down", "gpt_neox.layers.*.mlp.dense_4h_to_h"},
};

}  // namespace acuity::engine
