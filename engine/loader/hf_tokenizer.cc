#include "engine/loader/hf_tokenizer.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/loader/gguf_tokenizer.h"
#include "engine/loader/hf_tokenizer_file.h"
#include "engine/loader/json_node.h"
#include "engine/loader/mapped_file.h"
#include "engine/loader/token_index.h"

namespace acuity::engine {
namespace {

constexpr uint64_t kMaxTokenizerBytes = 256 << 20;  // the largest known has 34 MB
constexpr uint64_t kMaxConfigBytes = 16 << 20;      // the largest known have 200 KB

std::string_view View(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

// A file of the directory, or null if it has none of that name.
absl::StatusOr<std::unique_ptr<MappedFile>> OpenOptional(const std::string& path,
                                                         uint64_t max_bytes) {
  absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path, max_bytes);
  if (file.status().code() == absl::StatusCode::kNotFound) return nullptr;
  return file;
}

// An object, or null if the file is missing.
absl::StatusOr<Json> ReadOptional(const std::string& path) {
  ACUITY_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file,
                          OpenOptional(path, kMaxConfigBytes));
  if (file == nullptr) return Json();
  absl::StatusOr<Json> json = ParseJson(View(*file));
  if (!json.ok()) return InFile(path, json.status());
  if (!json->is_object()) {
    return InFile(path, InvalidArgument("is of type ", json->type_name(), "; it must be object"));
  }
  return json;
}

// Tokens that the configuration has and tokenizer.json does not, or that it describes otherwise.
absl::Status ReadAddedTokensDecoder(const JsonNode& config, TokenizerSpec* spec) {
  if (!config.Has("added_tokens_decoder")) return absl::OkStatus();
  ACUITY_ASSIGN_OR_RETURN(const JsonNode tokens, config.Member("added_tokens_decoder"));
  if (!tokens.value().is_object()) return tokens.Error("must be an object");
  for (const auto& [key, value] : tokens.value().items()) {
    const JsonNode node(&value, Concat(tokens.path(), ".", key));
    const bool digits =
        !key.empty() && key.size() <= 7 &&
        std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; });
    const int64_t id = digits ? std::stoll(key) : -1;
    if (id < 0 || id >= static_cast<int64_t>(kMaxVocabulary)) {
      return node.Error("has an id that is not from 0 to ", kMaxVocabulary - 1);
    }
    ACUITY_RETURN_IF_ERROR(ReadHfAddedToken(node, id, spec));
  }
  return absl::OkStatus();
}

// The text of "bos_token" and its like: a string, or an object with "content". Nothing if absent.
absl::StatusOr<std::optional<std::string>> SpecialTokenText(const JsonNode& config,
                                                            std::string_view key) {
  if (!config.Has(key)) return std::optional<std::string>();
  ACUITY_ASSIGN_OR_RETURN(const JsonNode token, config.Member(key));
  absl::StatusOr<std::string> text =
      token.value().is_object() ? token.String("content") : config.String(key);
  if (!text.ok()) return text.status();
  return std::optional<std::string>(*std::move(text));
}

// Whatever a name was given to is never made from text that is not trusted.
void MakeControl(TokenId id, TokenizerSpec* spec) {
  TokenKind& kind = spec->kinds[id];
  if (kind == TokenKind::kNormal || kind == TokenKind::kUserDefined) kind = TokenKind::kControl;
}

// Reads bos_token and its like from the first of the two files that has them.
absl::Status ReadSpecialTokens(const JsonNode& config, const JsonNode& map, TokenizerSpec* spec) {
  const TokenIndex index(*spec);
  struct Name {
    const char* key;
    std::optional<TokenId>* id;
    bool required;  // a model can do without padding
  };
  const Name names[] = {{"bos_token", &spec->bos, true},
                        {"eos_token", &spec->eos, true},
                        {"unk_token", &spec->unk, true},
                        {"pad_token", &spec->pad, false}};
  for (const auto& [key, id, required] : names) {
    std::optional<std::string> text;
    for (const JsonNode* file : {&config, &map}) {
      if (text.has_value() || !file->value().is_object()) continue;
      ACUITY_ASSIGN_OR_RETURN(text, SpecialTokenText(*file, key));
    }
    if (!text.has_value()) continue;
    const TokenId found = index.Find(*text);
    if (found != TokenIndex::kNone) {
      *id = found;
    } else if (required) {
      return InvalidArgument(key, " is ", QuoteForError(*text),
                             ", which is no token of tokenizer.json");
    }
  }
  for (const auto& [key, id, required] : names) {
    if (id->has_value()) MakeControl(**id, spec);
  }
  // A text must not end or begin because one of its characters is not known.
  if (spec->unknown.has_value() && (spec->unknown == spec->eos || spec->unknown == spec->bos)) {
    spec->unknown.reset();
  }
  return absl::OkStatus();
}

// These classes of transformers put BOS and EOS around a text themselves, whatever tokenizer.json's
// post_processor says.
absl::Status ReadPrefixAndSuffix(const JsonNode& config, TokenizerSpec* spec) {
  struct Class {
    std::string_view name;  // with or without "Fast" behind it
    bool adds_bos;
  };
  constexpr Class kClasses[] = {{"LlamaTokenizer", true},
                                {"CodeLlamaTokenizer", true},
                                {"GemmaTokenizer", true},
                                {"CohereTokenizer", true},
                                {"GPTNeoXTokenizer", false}};
  ACUITY_ASSIGN_OR_RETURN(std::string name, config.String("tokenizer_class", ""));
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  for (const Class& known : kClasses) {
    if (name != known.name) continue;
    ACUITY_ASSIGN_OR_RETURN(const bool bos, config.Bool("add_bos_token", known.adds_bos));
    ACUITY_ASSIGN_OR_RETURN(const bool eos, config.Bool("add_eos_token", false));
    if (bos && !spec->bos.has_value()) {
      return absl::InvalidArgumentError("add_bos_token is true, but there is no bos_token");
    }
    if (eos && !spec->eos.has_value()) {
      return absl::InvalidArgumentError("add_eos_token is true, but there is no eos_token");
    }
    spec->prefix.clear();
    spec->suffix.clear();
    if (bos) spec->prefix.push_back(*spec->bos);
    if (eos) spec->suffix.push_back(*spec->eos);
  }
  return absl::OkStatus();
}

// The template of tokenizer_config.json: a string, or a list of named ones.
absl::StatusOr<std::string> ConfiguredTemplate(const JsonNode& config) {
  if (!config.Has("chat_template")) return std::string();
  ACUITY_ASSIGN_OR_RETURN(const JsonNode templates, config.Member("chat_template"));
  if (!templates.value().is_array()) return config.String("chat_template");
  std::string chosen;
  bool found = false;
  ACUITY_RETURN_IF_ERROR(config.ForEach("chat_template", [&](const JsonNode& node) -> absl::Status {
    ACUITY_ASSIGN_OR_RETURN(const std::string name, node.String("name"));
    if (name != "default" && templates.value().size() > 1) return absl::OkStatus();
    found = true;
    ACUITY_ASSIGN_OR_RETURN(chosen, node.String("template"));
    return absl::OkStatus();
  }));
  if (!found && !templates.value().empty()) {
    return templates.Error("has several templates, but none is named 'default'");
  }
  return chosen;
}

absl::StatusOr<std::string> ReadChatTemplate(const std::string& directory, const JsonNode& config) {
  const std::string jinja = directory + "/chat_template.jinja";
  ACUITY_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file,
                          OpenOptional(jinja, kMaxChatTemplateBytes));
  if (file != nullptr) return std::string(View(*file));
  const std::string path = directory + "/chat_template.json";
  ACUITY_ASSIGN_OR_RETURN(const Json json, ReadOptional(path));
  const bool own_file = json.is_object();
  absl::StatusOr<std::string> text = ConfiguredTemplate(own_file ? JsonNode(&json, "") : config);
  if (text.ok() && text->size() > kMaxChatTemplateBytes) {
    text = InvalidArgument("chat_template has ", text->size(), " bytes, more than the limit of ",
                           kMaxChatTemplateBytes);
  }
  if (text.ok()) return text;
  return InFile(own_file ? path : directory + "/tokenizer_config.json", text.status());
}

// eos_token_id: an id or a list of ids.
absl::Status ReadEndIds(const JsonNode& config, TokenizerSpec* spec) {
  if (!config.Has("eos_token_id")) return absl::OkStatus();
  ACUITY_ASSIGN_OR_RETURN(const JsonNode ids, config.Member("eos_token_id"));
  const int64_t last = static_cast<int64_t>(spec->tokens.size()) - 1;
  const auto add = [&](const Json& id, const JsonNode& node) -> absl::Status {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > static_cast<uint64_t>(last)) {
      return node.Error("is ", id.dump(), "; it must be a token, from 0 to ", last);
    }
    spec->end_of_generation.push_back(id.get<TokenId>());
    return absl::OkStatus();
  };
  if (!ids.value().is_array()) return add(ids.value(), ids);
  return config.ForEach("eos_token_id",
                        [&](const JsonNode& node) { return add(node.value(), node); });
}

absl::Status ReadEndOfGeneration(const std::string& directory, TokenizerSpec* spec) {
  for (const char* name : {"/generation_config.json", "/config.json"}) {
    const std::string path = directory + name;
    ACUITY_ASSIGN_OR_RETURN(const Json json, ReadOptional(path));
    if (!json.is_object()) continue;
    const absl::Status status = ReadEndIds(JsonNode(&json, ""), spec);
    if (!status.ok()) return InFile(path, status);
    if (!spec->end_of_generation.empty()) break;
  }
  std::vector<TokenId>& ends = spec->end_of_generation;
  if (spec->eos.has_value()) ends.push_back(*spec->eos);
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  for (const TokenId id : ends) {
    if (spec->kinds[id] == TokenKind::kUserDefined) spec->kinds[id] = TokenKind::kControl;
  }
  return absl::OkStatus();
}

absl::Status ReadConfig(const JsonNode& config, const JsonNode& map, TokenizerSpec* spec) {
  if (config.value().is_object()) {
    ACUITY_RETURN_IF_ERROR(ReadAddedTokensDecoder(config, spec));
  }
  ACUITY_RETURN_IF_ERROR(ReadSpecialTokens(config, map, spec));
  return ReadPrefixAndSuffix(config, spec);
}

}  // namespace

absl::StatusOr<TokenizerSpec> ReadHfTokenizer(const std::string& directory) {
  const std::string path = directory + "/tokenizer.json";
  ACUITY_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file,
                          MappedFile::Open(path, kMaxTokenizerBytes));
  absl::StatusOr<TokenizerSpec> spec = ReadHfTokenizerFile(View(*file));
  if (!spec.ok()) return InFile(path, spec.status());
  const std::string config_path = directory + "/tokenizer_config.json";
  ACUITY_ASSIGN_OR_RETURN(const Json config_json, ReadOptional(config_path));
  ACUITY_ASSIGN_OR_RETURN(const Json map_json,
                          ReadOptional(directory + "/special_tokens_map.json"));
  const JsonNode config(&config_json, "");
  const absl::Status status = ReadConfig(config, JsonNode(&map_json, ""), &*spec);
  if (!status.ok()) return InFile(config_path, status);
  ACUITY_ASSIGN_OR_RETURN(spec->chat_template, ReadChatTemplate(directory, config));
  ACUITY_RETURN_IF_ERROR(ReadEndOfGeneration(directory, &*spec));
  return spec;
}

}  // namespace acuity::engine
