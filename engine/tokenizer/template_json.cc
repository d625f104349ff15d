#include "engine/tokenizer/template_json.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/tokenizer/template_text.h"
#include "engine/tokenizer/utf8.h"

namespace acuity::engine::jinja {
namespace {

// Builds the values from the events of nlohmann's parser, which keeps its own stack.
class JsonReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return Add(None{}); }
  bool boolean(bool b) override { return Add(b); }
  bool number_integer(int64_t i) override { return Add(i); }
  bool number_unsigned(uint64_t u) override {
    if (u > INT64_MAX) return Fail(absl::StrCat("integer ", u, " is beyond 64 bits"));
    return Add(static_cast<int64_t>(u));
  }
  bool number_float(double d, const std::string& digits) override {
    if (digits.find_first_of(".eE") == std::string::npos) {
      return Fail(absl::StrCat("integer ", digits.substr(0, 40), " is beyond 64 bits"));
    }
    return Add(d);
  }
  bool string(std::string& s) override { return Add(Text(s, kUntrusted)); }
  bool binary(nlohmann::json::binary_t&) override { return false; }
  bool start_object(size_t) override { return Open(true); }
  bool end_object() override { return Close(); }
  bool start_array(size_t) override { return Open(false); }
  bool end_array() override { return Close(); }
  bool key(std::string& key) override {
    stack_.back().key = key;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    return Fail(absl::StrCat("not JSON at byte ", position));
  }

  absl::StatusOr<Value> Result() const {
    if (!status_.ok()) return status_;
    return result_;
  }

 private:
  struct Level {
    bool object = false;
    List list;
    Dict dict;
    std::string key;
    absl::flat_hash_map<std::string, size_t> index;  // of a key in dict.entries
  };

  bool Fail(const std::string& message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(message);
    return false;
  }
  bool Open(bool object) {
    if (stack_.size() >= kMaxJsonDepth) {
      return Fail(absl::StrCat("nested deeper than ", kMaxJsonDepth));
    }
    stack_.emplace_back().object = object;
    return true;
  }
  bool Close() {
    Level level = std::move(stack_.back());
    stack_.pop_back();
    return level.object ? Add(std::move(level.dict)) : Add(std::move(level.list));
  }
  bool Add(Value value) {
    if (++count_ > kMaxJsonValues) {
      return Fail(absl::StrCat("more than ", kMaxJsonValues, " values"));
    }
    if (stack_.empty()) {
      result_ = std::move(value);
      return true;
    }
    Level& level = stack_.back();
    int& depth = level.object ? level.dict.depth : level.list.depth;
    depth = std::max(depth, value.Depth() + 1);
    if (!level.object) {
      level.list.items.push_back(std::move(value));
    } else if (const auto [it, added] =
                   level.index.try_emplace(level.key, level.dict.entries.size());
               added) {
      level.dict.entries.emplace_back(Text(level.key, kUntrusted), std::move(value));
    } else {
      level.dict.entries[it->second].second = std::move(value);
    }
    return true;
  }

  std::vector<Level> stack_;
  int count_ = 0;
  Value result_;
  absl::Status status_;
};

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Context* context) : style_(style), context_(*context) {}

  void Write(const Value& value, int level) {
    if (!context_.Charge(16) || !context_.CheckSize(out_.size())) return;
    if (const Text* text = value.text()) {
      if (context_.Charge(6 * text->size())) WriteString(*text);
    } else if (value.list() != nullptr && value.list()->kind <= List::Kind::kTuple) {
      const std::vector<Value>& items = value.list()->items;
      Open("[");
      for (size_t i = 0; i < items.size() && !context_.failed(); ++i) {
        BeginItem(i == 0, level + 1);
        Write(items[i], level + 1);
      }
      Close("]", items.empty(), level);
    } else if (value.dict() != nullptr) {
      WriteDict(*value.dict(), level);
    } else if (const std::string scalar = Scalar(value); !scalar.empty()) {
      out_.Append(scalar, kTrusted);
    } else {
      context_.FailType("tojson of", value);
    }
  }
  Text Take() { return std::move(out_); }

 private:
  static std::string Scalar(const Value& value) {
    if (value.none()) return "null";
    if (value.boolean() != nullptr) return *value.boolean() ? "true" : "false";
    if (int64_t i = 0; value.Integer(&i)) return std::to_string(i);
    if (value.real() == nullptr) return "";
    if (std::isnan(*value.real())) return "NaN";
    if (std::isinf(*value.real())) return *value.real() > 0 ? "Infinity" : "-Infinity";
    return FloatRepr(*value.real());
  }

  void WriteDict(const Dict& dict, int level) {
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys && context_.Charge(32 * entries.size())) {
      std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
        return context_.Order(a->first, b->first) < 0;
      });
    }
    Open("{");
    for (size_t i = 0; i < entries.size() && !context_.failed(); ++i) {
      BeginItem(i == 0, level + 1);
      const Value& key = entries[i]->first;
      WriteString(key.text() != nullptr ? *key.text() : Text(Scalar(key), kTrusted));
      out_.Append(style_.key_separator);
      Write(entries[i]->second, level + 1);
    }
    Close("}", entries.empty(), level);
  }

  void Open(std::string_view bracket) { out_.Append(bracket, kTrusted); }
  void BeginItem(bool first, int level) {
    if (!first) out_.Append(style_.item_separator);
    if (style_.pretty) NewLine(level);
  }
  void Close(std::string_view bracket, bool empty, int level) {
    if (style_.pretty && !empty) NewLine(level);
    out_.Append(bracket, kTrusted);
  }
  void NewLine(int level) {
    if (!context_.Charge(1 + level * style_.indent.size())) return;
    out_.Append("\n", kTrusted);
    for (int i = 0; i < level; ++i) out_.Append(style_.indent);
  }

  void WriteString(const Text& text) {
    out_.Append("\"", kTrusted);
    for (size_t i = 0; i < text.size();) {
      static constexpr std::string_view kFrom = "\"\\\n\r\t\b\f", kTo = "\"\\nrtbf";
      const Utf8Char c = DecodeUtf8(text.bytes().substr(i));
      if (const size_t k = kFrom.find(text.bytes()[i]); k != std::string_view::npos) {
        const char escape[] = {'\\', kTo[k]};
        out_.Append(std::string_view(escape, 2), text.mark(i));
      } else if (c.state == Utf8Char::State::kValid &&
                 (c.code < 0x20 || (style_.ensure_ascii && c.code > 0x7E))) {
        WriteEscape(c.code, text.mark(i));
      } else {
        out_.AppendPart(text, i, i + c.length);
      }
      i += c.length;
    }
    out_.Append("\"", kTrusted);
  }

  void WriteEscape(uint32_t code, Mark mark) {
    if (code < 0x10000) return out_.Append(absl::StrFormat("\\u%04x", code), mark);
    code -= 0x10000;
    out_.Append(absl::StrFormat("\\u%04x\\u%04x", 0xD800 + (code >> 10), 0xDC00 + (code & 0x3FF)),
                mark);
  }

  const JsonStyle& style_;
  Context& context_;
  Text out_;
};

}  // namespace

absl::StatusOr<Value> ParseJson(std::string_view json) {
  JsonReader reader;
  nlohmann::json::sax_parse(json, &reader);
  return reader.Result();
}

Text ToJson(const Value& value, const JsonStyle& style, Context* context) {
  JsonWriter writer(style, context);
  writer.Write(value, 0);
  return writer.Take();
}

}  // namespace acuity::engine::jinja
