// A set of byte strings to walk along, one byte at a time. Immutable after the last Insert;
// thread-safe.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/container/flat_hash_map.h"

namespace acuity::engine {

class ByteTrie {
 public:
  using Node = uint32_t;
  static constexpr Node kRoot = 0;
  static constexpr Node kNone = UINT32_MAX;

  // The node of `text`. Nodes are numbered from 1 on, as they come. REQUIRES: fewer than 2^32 bytes
  // in all.
  Node Insert(std::string_view text) {
    Node node = kRoot;
    for (const char c : text) {
      node = children_.try_emplace(Key(node, static_cast<uint8_t>(c)), size_).first->second;
      if (node == size_) ++size_;
    }
    return node;
  }

  // kNone if no string goes on with `byte`.
  Node Child(Node node, uint8_t byte) const {
    const auto it = children_.find(Key(node, byte));
    return it == children_.end() ? kNone : it->second;
  }

  Node size() const { return size_; }  // nodes, the root too

 private:
  static uint64_t Key(Node node, uint8_t byte) { return uint64_t{node} << 8 | byte; }

  Node size_ = 1;
  absl::flat_hash_map<uint64_t, Node> children_;
};

}  // namespace acuity::engine
