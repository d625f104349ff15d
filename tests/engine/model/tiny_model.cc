#include "tests/engine/model/tiny_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace acuity::engine {
namespace {

using Row = std::vector<double>;
using Rows = std::vector<Row>;

Rows Multiply(const Rows& x, const std::vector<float>& weight) {
  Rows y;
  for (const Row& in : x) {
    Row out(weight.size() / in.size());
    for (size_t j = 0; j < out.size(); ++j) {
      for (size_t k = 0; k < in.size(); ++k) out[j] += in[k] * weight[j * in.size() + k];
    }
    y.push_back(std::move(out));
  }
  return y;
}

Rows Normalise(const Rows& x, const std::vector<float>& weight, double epsilon) {
  Rows y = x;
  for (Row& row : y) {
    double sum = 0;
    for (double v : row) sum += v * v;
    const double scale = 1 / std::sqrt(sum / static_cast<double>(row.size()) + epsilon);
    for (size_t i = 0; i < row.size(); ++i) row[i] *= scale * weight[i];
  }
  return y;
}

void Add(const Rows& x, Rows* y) {
  for (size_t r = 0; r < x.size(); ++r) {
    for (size_t i = 0; i < x[r].size(); ++i) (*y)[r][i] += x[r][i];
  }
}

void Rotate(const RopeSpec& rope, int head_dim, Rows* x) {
  const int pairs = rope.rotary_dim / 2;
  for (size_t position = 0; position < x->size(); ++position) {
    Row& row = (*x)[position];
    for (size_t head = 0; head < row.size(); head += head_dim) {
      for (int i = 0; i < pairs; ++i) {
        double frequency = std::pow(static_cast<double>(rope.theta), -2.0 * i / rope.rotary_dim);
        if (!rope.factors.empty()) frequency /= rope.factors[i];
        const double angle = static_cast<double>(position) * frequency;
        const bool half = rope.style == kernels::RopeStyle::kHalf;
        double& a = row[head + (half ? i : 2 * i)];
        double& b = row[head + (half ? i + pairs : 2 * i + 1)];
        const double rotated = a * std::cos(angle) - b * std::sin(angle);
        b = b * std::cos(angle) + a * std::sin(angle);
        a = rotated;
      }
    }
  }
}

void RoundTo(kernels::DType dtype, Rows* x) {
  for (Row& row : *x) {
    for (double& v : row) {
      const float value = static_cast<float>(v);
      if (dtype == kernels::DType::kBFloat16) {
        v = kernels::BFloat16ToFloat(kernels::FloatToBFloat16(value));
      }
      if (dtype == kernels::DType::kFloat8) {
        v = kernels::Float8ToFloat(kernels::FloatToFloat8(value));
      }
    }
  }
}

// One (row, head): adds sum_j p_j v_j to out; returns {entropy, max_probability}.
std::pair<double, double> AttendRow(const ModelSpec& spec, const LayerSpec& layer, int head,
                                    int position, const Row& q, const Rows& k, const Rows& v,
                                    double* out) {
  const int dim = spec.head_dim;
  const int kv_head = head / (spec.num_heads / spec.num_kv_heads);
  const int begin = layer.window > 0 ? std::max(0, position + 1 - layer.window) : 0;
  const double scale = kernels::RowScale(layer.policy.view(), head, position + 1 - begin, position);
  Row z;
  for (int j = begin; j <= position; ++j) {
    double dot = 0;
    for (int d = 0; d < dim; ++d) dot += q[head * dim + d] * k[j][kv_head * dim + d];
    dot *= scale * spec.softmax_scale;
    const double cap = spec.attention_softcap;
    z.push_back(cap > 0 ? cap * std::tanh(dot / cap) : dot);
  }
  const double highest = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (double value : z) sum += std::exp(value - highest);
  double entropy = 0;
  for (size_t j = 0; j < z.size(); ++j) {
    const double p = std::exp(z[j] - highest) / sum;
    if (p > 0) entropy -= p * std::log(p);
    for (int d = 0; d < dim; ++d) out[d] += p * v[begin + j][kv_head * dim + d];
  }
  return {entropy, 1 / sum};
}

Rows Attend(const ModelSpec& spec, const LayerSpec& layer, const Rows& q, const Rows& k,
            const Rows& v, ReferenceOutput* result) {
  Rows out, entropy, max_probability;
  for (size_t position = 0; position < q.size(); ++position) {
    out.emplace_back(q[position].size());
    entropy.emplace_back();
    max_probability.emplace_back();
    for (int head = 0; head < spec.num_heads; ++head) {
      const auto [h, p] = AttendRow(spec, layer, head, static_cast<int>(position), q[position], k,
                                    v, &out.back()[head * spec.head_dim]);
      entropy.back().push_back(h);
      max_probability.back().push_back(p);
    }
  }
  result->entropy.push_back(std::move(entropy));
  result->max_probability.push_back(std::move(max_probability));
  return out;
}

}  // namespace

TinyCheckpoint::TinyCheckpoint(ModelSpec spec, uint64_t seed)
    : spec_(std::move(spec)), state_(seed) {
  const int64_t hidden = spec_.hidden_size, dim = spec_.head_dim;
  const int64_t q_rows = spec_.num_heads * dim, kv_rows = spec_.num_kv_heads * dim;
  Add("token_embd.weight", spec_.vocab_size, hidden, 0, 1);
  AddNorm("output_norm");
  if (!spec_.tied_embeddings) Add("output.weight", spec_.vocab_size, hidden, 0, 0.3f);
  if (spec_.learned_positions) Add("position_embd.weight", spec_.max_context, hidden, 0, 0.5f);
  for (int i = 0; i < spec_.num_layers; ++i) {
    const std::string prefix = absl::StrCat("blk.", i, ".");
    if (spec_.pre_norm) AddNorm(prefix + "attn_norm");
    AddLinear(prefix + "attn_q", q_rows, hidden, 0.2f, spec_.qkv_bias);
    AddLinear(prefix + "attn_k", kv_rows, hidden, 0.2f, spec_.qkv_bias);
    AddLinear(prefix + "attn_v", kv_rows, hidden, 0.3f, spec_.qkv_bias);
    if (spec_.qk_norm != QkNorm::kNone) {
      const bool one_head = spec_.qk_norm == QkNorm::kPerHead;
      Add(prefix + "attn_q_norm.weight", 1, one_head ? dim : q_rows, 1, 0.2f);
      Add(prefix + "attn_k_norm.weight", 1, one_head ? dim : kv_rows, 1, 0.2f);
    }
    if (spec_.sinks) Add(prefix + "attn_sinks.weight", 1, spec_.num_heads, 0, 1);
    AddLinear(prefix + "attn_output", hidden, q_rows, 0.2f, spec_.attention_out_bias);
    if (spec_.post_norm) AddNorm(prefix + "post_attention_norm");
    if (spec_.pre_norm && !spec_.shared_norm) AddNorm(prefix + "ffn_norm");
    AddFeedForward(prefix);
    if (spec_.post_norm) AddNorm(prefix + "post_ffw_norm");
  }
}

void TinyCheckpoint::AddFeedForward(const std::string& prefix) {
  const int64_t hidden = spec_.hidden_size, ffn = spec_.ffn_size, experts = spec_.experts.count;
  const int64_t copies = std::max<int64_t>(1, experts);
  const std::string suffix = experts > 0 ? "_exps" : "";
  if (experts > 0) {
    AddLinear(prefix + "ffn_gate_inp", experts, hidden, 0.5f, spec_.experts.router_bias);
  }
  if (spec_.gated_ffn) {
    AddLinear(prefix + "ffn_gate" + suffix, copies * ffn, hidden, 0.3f, spec_.ffn_bias);
  }
  AddLinear(prefix + "ffn_up" + suffix, copies * ffn, hidden, 0.3f, spec_.ffn_bias);
  AddLinear(prefix + "ffn_down" + suffix, copies * hidden, ffn, 0.2f, spec_.ffn_bias);
}

void TinyCheckpoint::AddNorm(const std::string& stem) {
  Add(stem + ".weight", 1, spec_.hidden_size, 1, 0.2f);
  if (spec_.norm_bias) Add(stem + ".bias", 1, spec_.hidden_size, 0, 0.2f);
}

void TinyCheckpoint::AddLinear(const std::string& stem, int64_t rows, int64_t columns,
                               float deviation, bool bias) {
  Add(stem + ".weight", rows, columns, 0, deviation);
  if (bias) Add(stem + ".bias", 1, rows, 0, 0.2f);
}

void TinyCheckpoint::Add(const std::string& name, int64_t rows, int64_t columns, float mean,
                         float deviation) {
  infos_.push_back({name, "F32", rows, columns});
  std::vector<float>& data = data_[name];
  for (int64_t i = 0; i < rows * columns; ++i) {
    // xorshift64*, summed to something bell-shaped: the same numbers everywhere.
    float sum = 0;
    for (int j = 0; j < 3; ++j) {
      state_ ^= state_ >> 12;
      state_ ^= state_ << 25;
      state_ ^= state_ >> 27;
      sum += static_cast<float>((state_ * 0x2545f4914f6cdd1dull) >> 40) / 16777216.0f - 0.5f;
    }
    data.push_back(mean + 2 * deviation * sum);
  }
}

const Checkpoint::TensorInfo* TinyCheckpoint::Find(std::string_view name) const {
  for (const TensorInfo& info : infos_) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

void TinyCheckpoint::Remove(const std::string& name) {
  std::erase_if(infos_, [&](const TensorInfo& info) { return info.name == name; });
}

void TinyCheckpoint::Scale(const std::string& name, float factor) {
  for (float& value : data_.at(name)) value *= factor;
}

void TinyCheckpoint::RoundMatrices() {
  for (const TensorInfo& info : infos_) {
    if (info.rows == 1) continue;
    for (float& value : data_[info.name]) {
      value = kernels::BFloat16ToFloat(kernels::FloatToBFloat16(value));
    }
  }
}

absl::Status TinyCheckpoint::ReadRows(const TensorInfo& tensor, int64_t row_begin, int64_t num_rows,
                                      float* out) const {
  if (tensor.name == damaged_) return absl::InvalidArgumentError("damaged: " + tensor.name);
  const std::vector<float>& data = data_.at(tensor.name);
  std::copy_n(data.begin() + row_begin * tensor.columns, num_rows * tensor.columns, out);
  return absl::OkStatus();
}

ModelSpec TinySpec() {
  ModelSpec spec;
  spec.architecture = "llama";
  spec.num_layers = 5;
  spec.hidden_size = 40;
  spec.num_heads = 6;
  spec.num_kv_heads = 2;
  spec.head_dim = 16;
  spec.ffn_size = 52;
  spec.vocab_size = 67;
  spec.max_context = 512;
  spec.ropes = {{.theta = 1000, .rotary_dim = 16, .style = kernels::RopeStyle::kInterleaved}};
  spec.softmax_scale = 0.25f;
  spec.tied_embeddings = true;
  spec.layers.resize(5);
  LayerPolicy& ssmax = spec.layers[1].policy;
  ssmax.kind = kernels::RowScaleKind::kSsmax;
  ssmax.s = {0.1f, 0.2f, 0.3f, -0.1f, 0.25f, 0.4f};
  ssmax.b = {0, 0.1f, -0.1f, 0.5f, 0, 0.2f};
  spec.layers[2].window = 7;
  spec.layers[3].rope = LayerSpec::kNoRope;
  spec.layers[3].policy.kind = kernels::RowScaleKind::kLogN;
  spec.layers[3].policy.length = 8;
  spec.layers[4].window = 20;
  spec.layers[4].policy = ssmax;
  return spec;
}

ReferenceOutput ReferenceForward(const TinyCheckpoint& checkpoint, const ModelSpec& spec,
                                 std::span<const int32_t> tokens, kernels::DType kv_dtype) {
  ReferenceOutput result;
  const std::vector<float>& embedding = checkpoint.Data("token_embd.weight");
  Rows x;
  for (const int32_t token : tokens) {
    const auto row = embedding.begin() + int64_t{token} * spec.hidden_size;
    x.emplace_back(row, row + spec.hidden_size);
  }
  for (int i = 0; i < spec.num_layers; ++i) {
    const auto weight = [&](const char* name) -> const std::vector<float>& {
      return checkpoint.Data(absl::StrCat("blk.", i, ".", name, ".weight"));
    };
    Rows normed = Normalise(x, weight("attn_norm"), spec.norm_epsilon);
    Rows q = Multiply(normed, weight("attn_q"));
    Rows k = Multiply(normed, weight("attn_k"));
    Rows v = Multiply(normed, weight("attn_v"));
    if (const int rope = spec.layers[i].rope; rope != LayerSpec::kNoRope) {
      Rotate(spec.ropes[rope], spec.head_dim, &q);
      Rotate(spec.ropes[rope], spec.head_dim, &k);
    }
    RoundTo(kv_dtype, &k);
    RoundTo(kv_dtype, &v);
    const Rows attention = Attend(spec, spec.layers[i], q, k, v, &result);
    Add(Multiply(attention, weight("attn_output")), &x);
    normed = Normalise(x, weight("ffn_norm"), spec.norm_epsilon);
    Rows gate = Multiply(normed, weight("ffn_gate"));
    const Rows up = Multiply(normed, weight("ffn_up"));
    for (size_t r = 0; r < gate.size(); ++r) {
      for (size_t j = 0; j < gate[r].size(); ++j) {
        gate[r][j] *= up[r][j] / (1 + std::exp(-gate[r][j]));
      }
    }
    Add(Multiply(gate, weight("ffn_down")), &x);
  }
  x = Normalise(x, checkpoint.Data("output_norm.weight"), spec.norm_epsilon);
  result.logits =
      Multiply(x, checkpoint.Data(spec.tied_embeddings ? "token_embd.weight" : "output.weight"));
  return result;
}

}  // namespace acuity::engine
