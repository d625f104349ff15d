#include "clients/cpp/inspect_model.h"

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <sstream>
#include <utility>
#include <vector>

#include "clients/cpp/commands.h"
#include "kernels/attention.h"

namespace acuity::client {
namespace {

using engine::Checkpoint;
using engine::LayerSpec;
using engine::ModelSpec;
using kernels::DType;

constexpr int kBlockTokens = 16;  // acuityd's default
constexpr DType kTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat8};

int64_t Parameters(const Checkpoint& checkpoint) {
  int64_t count = 0;
  for (const Checkpoint::TensorInfo& tensor : checkpoint.tensors()) {
    count += tensor.rows * tensor.columns;
  }
  return count;
}

int64_t WeightBytes(const Checkpoint& checkpoint, DType type) {
  int64_t bytes = 0;
  for (const Checkpoint::TensorInfo& tensor : checkpoint.tensors()) {
    const size_t size = kernels::SizeOf(tensor.rows > 1 ? type : DType::kFloat32);
    bytes += tensor.rows * tensor.columns * static_cast<int64_t>(size);
  }
  return bytes;
}

// Keys and values of all layers, of one block.
int64_t BlockBytes(const ModelSpec& spec, DType type) {
  return int64_t{2} * spec.num_layers * spec.num_kv_heads * spec.head_dim * kBlockTokens *
         static_cast<int64_t>(kernels::SizeOf(type));
}

int64_t SequenceBlocks(const ModelSpec& spec) {
  return (spec.max_context + kBlockTokens - 1) / kBlockTokens;
}

std::vector<int64_t> Shape(const Checkpoint::TensorInfo& tensor) {
  if (tensor.rows == 1) return {tensor.columns};
  return {tensor.rows, tensor.columns};
}

// Layers [first, last] whose attention is the same.
struct LayerRun {
  int first = 0, last = 0;
  const LayerSpec* layer = nullptr;
};

std::vector<LayerRun> LayerRuns(const ModelSpec& spec) {
  std::vector<LayerRun> runs;
  for (int i = 0; i < static_cast<int>(spec.layers.size()); ++i) {
    const LayerSpec& layer = spec.layers[i];
    const bool same = !runs.empty() && runs.back().layer->window == layer.window &&
                      runs.back().layer->rope == layer.rope &&
                      runs.back().layer->policy.name == layer.policy.name;
    if (!same) runs.push_back({i, i, &layer});
    runs.back().last = i;
  }
  return runs;
}

const char* Name(kernels::NormKind norm) {
  return norm == kernels::NormKind::kRms ? "rms" : "layer";
}

const char* Name(engine::QkNorm norm) {
  switch (norm) {
    case engine::QkNorm::kNone:
      return "none";
    case engine::QkNorm::kPerHead:
      return "per_head";
    case engine::QkNorm::kOwnWeights:
      return "per_head_own_weights";
    case engine::QkNorm::kWhole:
      return "whole";
  }
  return "none";
}

const char* Name(kernels::Activation activation) {
  switch (activation) {
    case kernels::Activation::kSilu:
      return "silu";
    case kernels::Activation::kGelu:
      return "gelu";
    case kernels::Activation::kGeluTanh:
      return "gelu_tanh";
    case kernels::Activation::kClampedSwiglu:
      return "clamped_swiglu";
  }
  return "silu";
}

const char* Name(kernels::RopeStyle style) {
  return style == kernels::RopeStyle::kHalf ? "half" : "interleaved";
}

// A switch of the architecture, under its name in ModelSpec.
struct Flag {
  const char* name;
  bool value;
};

std::vector<Flag> Flags(const ModelSpec& spec) {
  return {{"norm_bias", spec.norm_bias},
          {"pre_norm", spec.pre_norm},
          {"post_norm", spec.post_norm},
          {"parallel_residual", spec.parallel_residual},
          {"shared_norm", spec.shared_norm},
          {"learned_positions", spec.learned_positions},
          {"qkv_bias", spec.qkv_bias},
          {"attention_out_bias", spec.attention_out_bias},
          {"sinks", spec.sinks},
          {"gated_ffn", spec.gated_ffn},
          {"ffn_bias", spec.ffn_bias},
          {"tied_embeddings", spec.tied_embeddings}};
}

// Factors that do nothing at their neutral value.
struct Factor {
  const char* name;
  float value, neutral;
};

std::vector<Factor> Factors(const ModelSpec& spec) {
  return {{"attention_softcap", spec.attention_softcap, 0},
          {"logit_softcap", spec.logit_softcap, 0},
          {"embedding_scale", spec.embedding_scale, 1},
          {"residual_scale", spec.residual_scale, 1},
          {"logit_scale", spec.logit_scale, 1}};
}

Json SpecJson(const ModelSpec& spec) {
  Json json = {{"num_layers", spec.num_layers},
               {"hidden_size", spec.hidden_size},
               {"num_heads", spec.num_heads},
               {"num_kv_heads", spec.num_kv_heads},
               {"head_dim", spec.head_dim},
               {"ffn_size", spec.ffn_size},
               {"vocab_size", spec.vocab_size},
               {"max_context", spec.max_context},
               {"norm", Name(spec.norm)},
               {"norm_epsilon", spec.norm_epsilon},
               {"qk_norm", Name(spec.qk_norm)},
               {"activation", Name(spec.activation)},
               {"softmax_scale", spec.softmax_scale}};
  for (const Flag& flag : Flags(spec)) json[flag.name] = flag.value;
  for (const Factor& factor : Factors(spec)) json[factor.name] = factor.value;
  if (spec.experts.count > 0) {
    json["experts"] = {{"count", spec.experts.count},
                       {"per_token", spec.experts.per_token},
                       {"normalised", spec.experts.normalised},
                       {"router_bias", spec.experts.router_bias}};
  }
  json["ropes"] = Json::array();
  for (const engine::RopeSpec& rope : spec.ropes) {
    json["ropes"].push_back({{"theta", rope.theta},
                             {"rotary_dim", rope.rotary_dim},
                             {"style", Name(rope.style)},
                             {"magnitude", rope.magnitude},
                             {"factors", rope.factors},
                             {"knee", rope.knee},
                             {"slopes", rope.slopes}});
  }
  return json;
}

Json LayersJson(const ModelSpec& spec) {
  Json layers = Json::array();
  for (const LayerRun& run : LayerRuns(spec)) {
    layers.push_back(
        {{"layer", run.first},
         {"last_layer", run.last},
         {"policy", run.layer->policy.name},
         {"window", run.layer->window},
         {"rope", run.layer->rope == LayerSpec::kNoRope ? Json() : Json(run.layer->rope)}});
  }
  return layers;
}

Json MemoryJson(const engine::OpenedModel& model) {
  Json memory = {{"block_size", kBlockTokens}};
  for (const DType type : kTypes) {
    const int64_t block = BlockBytes(model.spec, type);
    Json& of_type = memory[kernels::DTypeName(type)];
    if (type != DType::kFloat8) of_type["weight_bytes"] = WeightBytes(*model.checkpoint, type);
    of_type["kv_bytes_per_block"] = block;
    of_type["kv_bytes_per_sequence"] = block * SequenceBlocks(model.spec);
  }
  return memory;
}

std::string Megabytes(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f MB", static_cast<double>(bytes) / 1e6);
  return text;
}

void WriteArchitecture(const ModelSpec& spec, std::ostream& out) {
  out << "  norm " << Name(spec.norm) << ", epsilon " << spec.norm_epsilon << "; activation "
      << Name(spec.activation) << "; QK norm " << Name(spec.qk_norm) << "; softmax scale "
      << spec.softmax_scale << "\n";
  if (spec.experts.count > 0) {
    out << "  experts " << spec.experts.per_token << " of " << spec.experts.count << "\n";
  }
  for (const engine::RopeSpec& rope : spec.ropes) {
    out << "  rotary embedding of " << rope.rotary_dim << ", theta " << rope.theta << ", "
        << Name(rope.style) << (rope.factors.empty() ? "" : ", scaled frequencies");
    if (rope.magnitude != 1) out << ", magnitude " << rope.magnitude;
    if (rope.knee > 0) out << ", slower beyond " << rope.knee;
    out << "\n";
  }
  out << " ";
  for (const Flag& flag : Flags(spec)) {
    if (flag.value) out << " " << flag.name;
  }
  for (const Factor& factor : Factors(spec)) {
    if (factor.value != factor.neutral) out << " " << factor.name << "=" << factor.value;
  }
  out << "\n";
}

void WriteLayers(const ModelSpec& spec, std::ostream& out) {
  for (const LayerRun& run : LayerRuns(spec)) {
    out << "  layers " << run.first << "-" << run.last << ": " << run.layer->policy.name;
    if (run.layer->rope == LayerSpec::kNoRope) out << ", no rotary embedding";
    if (run.layer->window > 0) out << ", window of " << run.layer->window << " tokens";
    out << "\n";
  }
}

void WriteMemory(const engine::OpenedModel& model, std::ostream& out) {
  for (const DType type : kTypes) {
    const int64_t block = BlockBytes(model.spec, type);
    out << "  " << kernels::DTypeName(type) << ": ";
    if (type != DType::kFloat8) {
      out << "weights " << Megabytes(WeightBytes(*model.checkpoint, type)) << "; ";
    }
    out << "KV " << block << " bytes a block of " << kBlockTokens << " tokens, "
        << Megabytes(block * SequenceBlocks(model.spec)) << " a sequence of "
        << model.spec.max_context << " (--kv-memory at least)\n";
  }
}

void WriteTensors(const Checkpoint& checkpoint, std::ostream& out) {
  size_t width = 0;
  for (const auto& tensor : checkpoint.tensors()) width = std::max(width, tensor.name.size());
  for (const auto& tensor : checkpoint.tensors()) {
    out << "  " << tensor.name << std::string(width + 2 - tensor.name.size(), ' ') << tensor.type
        << "\t" << Json(Shape(tensor)).dump() << "\n";
  }
}

}  // namespace

absl::StatusOr<engine::OpenedModel> OpenToInspect(const std::string& path,
                                                  const std::string& attention_policy) {
  auto model = engine::OpenModel(path, attention_policy);
  if (!model.ok()) return model;
  const ModelSpec& spec = model->spec;
  const char* problem = kernels::Supports(
      {spec.num_heads, spec.num_kv_heads, spec.head_dim, kBlockTokens, DType::kBFloat16});
  if (problem != nullptr) return absl::InvalidArgumentError(problem);
  return model;
}

Json ToJson(const engine::OpenedModel& model) {
  Json tensors = Json::array();
  for (const Checkpoint::TensorInfo& tensor : model.checkpoint->tensors()) {
    tensors.push_back({{"name", tensor.name}, {"type", tensor.type}, {"shape", Shape(tensor)}});
  }
  return {{"architecture", model.spec.architecture},
          {"display_name", model.spec.display_name},
          {"stored_type", std::string(model.checkpoint->stored_type())},
          {"file_bytes", model.checkpoint->file_bytes()},
          {"parameters", Parameters(*model.checkpoint)},
          {"chat", model.chat_template != nullptr},
          {"spec", SpecJson(model.spec)},
          {"layers", LayersJson(model.spec)},
          {"memory", MemoryJson(model)},
          {"tensors", std::move(tensors)}};
}

std::string ToText(const engine::OpenedModel& model) {
  const ModelSpec& spec = model.spec;
  std::ostringstream out;
  char parameters[32];
  std::snprintf(parameters, sizeof(parameters), "%.1f M",
                static_cast<double>(Parameters(*model.checkpoint)) / 1e6);
  out << spec.display_name << " (" << spec.architecture << "), " << parameters
      << " parameters, stored as " << model.checkpoint->stored_type() << ", "
      << Megabytes(static_cast<int64_t>(model.checkpoint->file_bytes())) << "\n";
  out << "  " << spec.num_layers << " layers: hidden " << spec.hidden_size << ", " << spec.num_heads
      << " heads of " << spec.head_dim << " on " << spec.num_kv_heads
      << " of keys and values, feed-forward " << spec.ffn_size << "\n";
  out << "  vocabulary " << spec.vocab_size << "; context " << spec.max_context
      << (model.chat_template != nullptr ? "; chat template" : "; no chat template") << "\n";
  WriteArchitecture(spec, out);
  out << "Attention\n";
  WriteLayers(spec, out);
  out << "Memory\n";
  WriteMemory(model, out);
  out << "Tensors\n";
  WriteTensors(*model.checkpoint, out);
  return out.str();
}

int InspectModel(const std::string& path, const std::string& attention_policy, bool json) {
  const auto model = OpenToInspect(path, attention_policy);
  if (!model.ok()) {
    std::cerr << "acuity: " << model.status().message() << "\n";
    return 1;
  }
  if (json) {
    Print(ToJson(*model));
  } else {
    std::cout << ToText(*model);
  }
  return 0;
}

}  // namespace acuity::client
