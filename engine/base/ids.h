// Strong ids: a block is not a token is not a sequence.
#pragma once

#include <cstdint>
#include <functional>

namespace acuity::engine {

template <typename Tag, typename Value>
struct StrongId {
  Value value{};
  friend constexpr bool operator==(StrongId, StrongId) = default;
  friend constexpr auto operator<=>(StrongId, StrongId) = default;
};

using BlockId = StrongId<struct BlockTag, int32_t>;
using RequestId =
    StrongId<struct RequestTag, uint64_t>;  // unique in the process, never the client's
using TokenId = int32_t;                    // a plain index into the vocabulary

}  // namespace acuity::engine

template <typename Tag, typename Value>
struct std::hash<acuity::engine::StrongId<Tag, Value>> {
  size_t operator()(acuity::engine::StrongId<Tag, Value> id) const {
    return std::hash<Value>{}(id.value);
  }
};
