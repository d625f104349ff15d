// The architectures that are read from GGUF files, as a table: what llama.cpp's names for them
// leave unsaid. Adding one is a row here, and a row in tests/parity/make_gguf.py.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/loader/gguf_metadata.h"
#include "engine/loader/gguf_tensors.h"
#include "engine/loader/model_spec.h"

namespace acuity::engine {

enum class GgufResidual : uint8_t {
  kSerial,
  kAsKeySays,   // parallel if <architecture>.use_parallel_residual
  kAsNormsSay,  // parallel, with one norm, if there is no ffn_norm
  kParallel,    // with one norm
};

// What rotary embedding the layers have.
enum class GgufRope : uint8_t {
  kNone,
  kAllAlike,
  kOwnInWindows,  // those with a window have one of their own, of base rope.freq_base_swa, unscaled
  kInWindowsOnly,  // those without a window have none
};

struct GgufArchitecture {
  static constexpr int kNoWindows = -1;

  std::string_view name;  // general.architecture, and of its keys all before the first dot

  kernels::NormKind norm = kernels::NormKind::kRms;
  bool pre_norm = true, post_norm = false;
  GgufResidual residual = GgufResidual::kSerial;
  std::string_view ffn_norm = "ffn_norm";  // its tensor

  // Interleaved where the converter permutes Q and K, or transformers turns pairs of neighbours.
  kernels::RopeStyle rope_style = kernels::RopeStyle::kHalf;
  GgufRope rope = GgufRope::kAllAlike;
  float absent_window_theta = 0;  // if rope.freq_base_swa is absent; 0: rope.freq_base
  int no_rope_period = 0;         // every so many-th layer has no rope; 0: all have it
  bool yarn_truncates = true;
  QkNorm qk_norm = QkNorm::kNone;  // kOwnWeights: only if the tensors are there

  // Of `period` layers all but the last have the window; 0: all layers; kNoWindows: it must be 0.
  int window_period = kNoWindows;
  std::optional<int64_t> absent_window = 0;  // none: required

  kernels::Activation activation = kernels::Activation::kSilu;
  bool gated_ffn = true;
  bool experts = false;  // if expert_count says so

  bool embeds_times_root = false;  // the embedding is multiplied by the square root of its length
  // The number of layers of the size of Gemma whose softmax's scale comes from hidden size / heads.
  int layers_scaled_by_hidden = 0;
  bool has_multipliers = false;  // Granite's, of embedding, residual and attention; divides logits
  bool has_logit_scale = false;  // multiplies logits
  bool has_attention_softcap = false, has_logit_softcap = false;
  float absent_attention_softcap = 0, absent_logit_softcap = 0;
  bool has_temperature = false;  // Ministral 3's
};

std::span<const GgufArchitecture> GgufArchitectures();

// What the metadata and the presence of tensors say of a model. Reads, or refuses, every key under
// the architecture's name. vocab_size is 0 if the file does not repeat it.
absl::StatusOr<ModelSpec> ReadGgufSpec(const GgufArchitecture& architecture, GgufMetadata* metadata,
                                       GgufTensorMap* tensors);

}  // namespace acuity::engine
