// Reads the input as a config.json and, if it is one of a known architecture, lists the tensors
// that such a model has.
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "engine/loader/hf_architectures.h"
#include "engine/loader/model_tensors.h"
#include "tests/fuzz/entry.h"

namespace acuity::engine {
namespace {

// Longer lists take a fuzzer's time and show nothing new.
constexpr int kMaxListedLayers = 64;

void Require(bool condition) {
  if (!condition) std::abort();
}

// What the decoder and the kernels count on.
void Check(const ModelSpec& spec) {
  Require(spec.num_layers > 0 && spec.layers.size() == static_cast<size_t>(spec.num_layers));
  Require(spec.num_heads > 0 && spec.num_kv_heads > 0 && spec.num_heads % spec.num_kv_heads == 0);
  Require(spec.head_dim > 0 && spec.head_dim % 16 == 0 && spec.hidden_size > 0);
  Require(spec.vocab_size > 0 && spec.max_context > 0 && spec.ffn_size > 0);
  Require(spec.norm_epsilon > 0 && spec.softmax_scale > 0 && std::isfinite(spec.softmax_scale));
  Require(std::isfinite(spec.logit_scale) && std::isfinite(spec.embedding_scale));
  Require(spec.experts.count == 0 || spec.experts.per_token <= spec.experts.count);
  for (const LayerSpec& layer : spec.layers) {
    Require(layer.rope >= LayerSpec::kNoRope && layer.rope < static_cast<int>(spec.ropes.size()));
    Require(layer.window >= 0);
  }
  for (const RopeSpec& rope : spec.ropes) {
    Require(rope.rotary_dim > 0 && rope.rotary_dim % 2 == 0 && rope.rotary_dim <= spec.head_dim);
    Require(rope.magnitude > 0 && std::isfinite(rope.magnitude));
    Require(rope.factors.empty() ||
            rope.factors.size() == static_cast<size_t>(rope.rotary_dim / 2));
    for (const float factor : rope.factors) Require(factor > 0 && std::isfinite(factor));
  }
}

}  // namespace
}  // namespace acuity::engine

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace engine = acuity::engine;
  const auto model =
      engine::ReadHfModel(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!model.ok()) return 0;
  engine::Check(model->spec);
  if (model->spec.num_layers > engine::kMaxListedLayers) return 0;
  for (const engine::ModelTensor& tensor : engine::ModelTensors(model->spec)) {
    engine::Require(tensor.rows > 0 && tensor.columns > 0);
  }
  return 0;
}
