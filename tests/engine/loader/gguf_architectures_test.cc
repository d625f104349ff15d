// Keys of a GGUF that change what a model computes: read, or refused by name.
#include <string>

#include "engine/loader/gguf_checkpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/loader/gguf_builder.h"
#include "tests/engine/loader/gguf_errors.h"

namespace acuity::engine {
namespace {

using testing::CheckpointError;
using testing::GgufBuilder;
using testing::Says;
using testing::TinyLlama;

TEST(GgufArchitecturesTest, KeyAndValueLengths) {
  GgufBuilder b = TinyLlama();
  b.SetUint32("llama.attention.key_length", 24);
  EXPECT_THAT(CheckpointError(b), Says("head dimension", "is 24"));
  b.SetUint32("llama.attention.key_length", 32);
  EXPECT_THAT(CheckpointError(b),
              Says("'blk.0.attn_q.weight'", "[32, 32, 1, 1]", "[32, 64, 1, 1]"));
  b.SetUint32("llama.attention.value_length", 16);
  EXPECT_THAT(CheckpointError(b), Says("llama.attention.value_length", "16", "32"));
  b = TinyLlama();
  b.SetUint32("llama.attention.key_length", 16);
  b.SetUint32("llama.attention.value_length", 16);
  EXPECT_EQ(CheckpointError(b), "no error");
}

TEST(GgufArchitecturesTest, RotaryDimension) {
  GgufBuilder b = TinyLlama();
  b.SetUint32("llama.rope.dimension_count", 18);
  EXPECT_THAT(CheckpointError(b), Says("llama.rope.dimension_count", "18", "16"));
  b.SetUint32("llama.rope.dimension_count", 7);
  EXPECT_THAT(CheckpointError(b), Says("llama.rope.dimension_count", "7", "even"));
}

TEST(GgufArchitecturesTest, OtherMathsRefused) {
  GgufBuilder b = TinyLlama();
  b.SetString("llama.rope.scaling.type", "dynamic");
  EXPECT_THAT(CheckpointError(b),
              Says("llama.rope.scaling.type", "'dynamic'", "none, linear, yarn"));
  b.SetString("llama.rope.scaling.type", "none");
  EXPECT_EQ(CheckpointError(b), "no error");
  b.SetUint32("llama.expert_count", 0);
  EXPECT_EQ(CheckpointError(b), "no error");
  b.SetUint32("llama.expert_count", 8);
  EXPECT_THAT(CheckpointError(b), Says("llama.expert_used_count", "is missing"));
  b.SetUint32("llama.expert_used_count", 9);
  EXPECT_THAT(CheckpointError(b), Says("llama.expert_used_count", "is 9", "from 1 to 8"));
  b.SetUint32("llama.expert_used_count", 2);
  EXPECT_THAT(CheckpointError(b), Says("'blk.0.ffn_gate_inp.weight' is missing"));
  b = TinyLlama();
  b.SetUint32("llama.attention.sliding_window", 4096);
  EXPECT_THAT(CheckpointError(b), Says("llama.attention.sliding_window", "4096"));
  b = TinyLlama();
  b.SetBool("llama.attention.causal", 0);
  EXPECT_THAT(CheckpointError(b), Says("llama.attention.causal"));
  b = TinyLlama();
  b.SetBool("llama.use_parallel_residual", 1);
  EXPECT_THAT(CheckpointError(b), Says("llama.use_parallel_residual"));
  b = TinyLlama();
  b.SetBool("llama.rope.scaling.finetuned", 0);
  EXPECT_THAT(CheckpointError(b), Says("llama.rope.scaling.finetuned is false"));
  b = TinyLlama();
  b.SetString("llama.tensor_data_layout", "other");
  EXPECT_THAT(CheckpointError(b), Says("llama.tensor_data_layout", "'other'"));
}

TEST(GgufArchitecturesTest, RopeScaling) {
  GgufBuilder b = TinyLlama();
  b.SetString("llama.rope.scaling.type", "linear");
  EXPECT_THAT(CheckpointError(b), Says("'llama.rope.scaling.factor' is missing"));
  b.SetFloat("llama.rope.scaling.factor", 0.5f);
  EXPECT_THAT(CheckpointError(b), Says("'llama.rope.scaling.factor' is 0.5", "from 1 to"));
  b.SetFloat("llama.rope.scaling.factor", 4);
  EXPECT_EQ(CheckpointError(b), "no error");
  b.SetFloat("llama.rope.scaling.yarn_beta_fast", 32);  // of another scaling
  EXPECT_THAT(CheckpointError(b), Says("yarn_beta_fast", "not known"));
  b.SetString("llama.rope.scaling.type", "yarn");
  EXPECT_EQ(CheckpointError(b), "no error");
  b.SetFloat("llama.rope.scaling.yarn_ext_factor", 0.5f);
  EXPECT_THAT(CheckpointError(b), Says("yarn_ext_factor", "is 0.5", "from 1 to 1"));
  b = TinyLlama();
  b.SetString("llama.rope.scaling.type", "longrope");
  EXPECT_THAT(CheckpointError(b), Says("'rope_factors_long.weight' is missing"));
}

TEST(GgufArchitecturesTest, UnknownArchitectureKeysRefused) {
  for (const char* key : {"llama.logit_scale", "llama.rope.scaling.factor",
                          "llama.rope.scale_linear", "llama.attention.clamp_kqv"}) {
    GgufBuilder b = TinyLlama();
    b.SetFloat(key, 1);
    EXPECT_THAT(CheckpointError(b), Says(key, "not known"));
  }
  GgufBuilder b = TinyLlama();
  b.SetUint32("general.future", 1);
  b.SetUint32("tokenizer.ggml.future", 1);
  b.SetUint32("quantize.imatrix.chunks_count", 1);
  EXPECT_EQ(CheckpointError(b), "no error");
}

TEST(GgufArchitecturesTest, HeadsThatDoNotDivide) {
  GgufBuilder b = TinyLlama();
  b.SetUint32("llama.attention.head_count", 3);
  EXPECT_THAT(CheckpointError(b), Says("embedding_length 32", "head_count 3"));
  b.SetUint32("llama.attention.head_count", 4);
  EXPECT_THAT(CheckpointError(b), Says("head dimension", "is 8", "multiple of 16 from 16 to 256"));
  b.SetUint32("llama.attention.head_count", 64);
  b.SetUint32("llama.embedding_length", 64 * 512);
  EXPECT_THAT(CheckpointError(b), Says("head dimension", "is 512"));
  b = TinyLlama();
  b.SetUint32("llama.attention.head_count", 2);
  b.SetUint32("llama.attention.head_count_kv", 4);
  EXPECT_THAT(CheckpointError(b), Says("head_count 2", "head_count_kv 4"));
}

}  // namespace
}  // namespace acuity::engine
