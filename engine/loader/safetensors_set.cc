#include <algorithm>
#include <filesystem>
#include <functional>
#include <set>
#include <system_error>
#include <utility>

#include "engine/loader/gguf.h"
#include "engine/loader/model_file.h"
#include "engine/loader/safetensors.h"
#include "engine/loader/status_util.h"
#include "nlohmann/json.hpp"

namespace acuity::engine {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";
// A file larger than this is not for this daemon: its weights could not be held in memory.
constexpr uint64_t kMaxFileBytes = uint64_t{1} << 40;
// The index's own nesting is 2; what else it holds is skipped.
constexpr int kMaxIndexDepth = 16;
constexpr std::string_view kPickleSuffixes[] = {".bin", ".pt", ".pth", ".pkl", ".ckpt"};

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return InvalidArgument("safetensors index: ", parts...);
}

// Receives the index's JSON piece by piece and hands each entry of "weight_map" on. Keeps no names:
// an index is read twice, once for the files and once more to check it against their tensors.
class IndexReader {
 public:
  using OnEntry = std::function<absl::Status(const std::string& tensor, const std::string& file)>;
  explicit IndexReader(const OnEntry& on_entry) : on_entry_(on_entry) {}

  absl::Status status() const { return status_; }

  bool null() { return Other("null"); }
  bool boolean(bool) { return Other("a bool"); }
  bool number_integer(int64_t) { return Other("a number"); }
  bool number_unsigned(uint64_t) { return Other("a number"); }
  bool number_float(double, const std::string&) { return Other("a number"); }
  bool binary(Json::binary_t&) { return Other("binary"); }
  bool string(std::string& value) {
    if (depth_ != 2 || !in_map_) return Other("a string");
    status_ = on_entry_(key_, value);
    return status_.ok();
  }
  bool key(std::string& name) {
    if (depth_ == 1) {
      if (name == "weight_map" && map_seen_) return Fail("weight_map occurs twice");
      in_map_ = name == "weight_map";
      map_seen_ |= in_map_;
    }
    if (in_map_) key_ = name;
    return true;
  }
  bool start_object(size_t) { return Enter(true); }
  bool end_object() { return Leave(); }
  bool start_array(size_t) { return Enter(false); }
  bool end_array() { return Leave(); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) {
    return Fail("not valid JSON at byte ", position);
  }

  bool map_seen() const { return map_seen_; }

 private:
  template <typename... Parts>
  bool Fail(const Parts&... parts) {
    status_ = Bad(parts...);
    return false;
  }
  bool Enter(bool object) {
    const std::string_view what = object ? "an object" : "an array";
    if (depth_ == 0 && !object) return Fail("it is ", what, "; it must be an object");
    if (in_map_ && (depth_ != 1 || !object)) return Other(what);
    if (++depth_ > kMaxIndexDepth) return Fail("nested deeper than ", kMaxIndexDepth);
    return true;
  }
  bool Leave() {
    if (--depth_ == 1) in_map_ = false;
    return true;
  }
  // A value that is no entry of the map: whatever it is if outside, wrong if inside.
  bool Other(std::string_view what) {
    if (depth_ == 0) return Fail("it is ", what, "; it must be an object");
    if (!in_map_) return true;
    if (depth_ == 1) return Fail("weight_map is ", what, "; it must be an object");
    return Fail("weight_map's ", QuoteForError(key_), " is ", what, "; it must be a file name");
  }

  const OnEntry& on_entry_;
  absl::Status status_;
  int depth_ = 0;
  bool in_map_ = false;  // within the value of "weight_map"
  bool map_seen_ = false;
  std::string key_;
};

// The distinct files that the index names, sorted.
absl::StatusOr<std::vector<std::string>> FilesOf(std::span<const uint8_t> index) {
  std::set<std::string> files;
  const auto collect = [&files](const std::string& tensor, const std::string& file) {
    if (file.size() > kMaxSafetensorsNameBytes || !file.ends_with(".safetensors")) {
      return Bad("weight_map's ", QuoteForError(tensor), " is ", QuoteForError(file),
                 "; it must be the name of a .safetensors file of at most ",
                 kMaxSafetensorsNameBytes, " bytes");
    }
    files.insert(file);
    if (files.size() > kMaxSafetensorsShards) {
      return Bad("weight_map names more than the limit of ", kMaxSafetensorsShards, " files");
    }
    return absl::OkStatus();
  };
  ACUITY_RETURN_IF_ERROR(ReadSafetensorsIndex(index, collect));
  return std::vector<std::string>(files.begin(), files.end());
}

// What there is instead of safetensors, to say why nothing was read.
absl::Status NothingIn(const std::string& directory) {
  std::error_code error;
  std::string pickle;
  std::filesystem::directory_iterator entry(directory, error), end;
  if (error) return absl::NotFoundError(Concat("cannot list ", directory, ": ", error.message()));
  while (!error && entry != end) {
    const std::string name = entry->path().filename().string();
    const bool is_pickle =
        std::any_of(std::begin(kPickleSuffixes), std::end(kPickleSuffixes),
                    [&name](std::string_view suffix) { return name.ends_with(suffix); });
    if (is_pickle && (pickle.empty() || name < pickle)) pickle = name;
    entry.increment(error);
  }
  return absl::NotFoundError(Concat(directory, " has neither ", kSingleFile, " nor ", kIndexFile,
                                    pickle.empty()
                                        ? ""
                                        : Concat("; pickle files (", pickle,
                                                 ") are never read, for they "
                                                 "can run code: convert them to safetensors")));
}

}  // namespace

absl::Status ReadSafetensorsIndex(
    std::span<const uint8_t> json,
    const std::function<absl::Status(const std::string& tensor, const std::string& file)>&
        on_entry) {
  if (std::find(json.begin(), json.end(), 0) != json.end()) {  // the JSON library would stop there
    return Bad("it has a byte of 0");
  }
  IndexReader reader(on_entry);
  const bool parsed = Json::sax_parse(json.begin(), json.end(), &reader);
  ACUITY_RETURN_IF_ERROR(reader.status());
  if (!parsed) return Bad("not valid JSON");
  return reader.map_seen() ? absl::OkStatus() : Bad("weight_map is missing");
}

const SafetensorsTensor* SafetensorsSet::Find(std::string_view name) const {
  const auto at = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                   [](const SafetensorsTensor& tensor, std::string_view wanted) {
                                     return tensor.name < wanted;
                                   });
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

absl::Status SafetensorsSet::AddFile(const std::string& directory, std::string_view name) {
  ACUITY_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mapping,
                          OpenModelFile(directory, name, kMaxFileBytes));
  const std::string path = Concat(directory, "/", name);
  absl::StatusOr<std::vector<SafetensorsTensor>> tensors = ParseSafetensors(mapping->bytes());
  if (!tensors.ok()) return InFile(path, tensors.status());
  if (tensors->size() > kMaxSafetensors - tensors_.size()) {
    return InvalidArgument(path, ": with this file there are ", tensors_.size() + tensors->size(),
                           " tensors, more than the limit of ", kMaxSafetensors);
  }
  for (SafetensorsTensor& tensor : *tensors) tensor.file = static_cast<int>(files_.size());
  if (tensors_.empty()) {
    tensors_ = *std::move(tensors);
  } else {
    tensors_.insert(tensors_.end(), std::move_iterator(tensors->begin()),
                    std::move_iterator(tensors->end()));
  }
  file_bytes_ += mapping->bytes().size();
  files_.push_back(path);
  mappings_.push_back(std::move(mapping));
  return absl::OkStatus();
}

absl::Status SafetensorsSet::SortByName() {
  std::sort(tensors_.begin(), tensors_.end(),
            [](const SafetensorsTensor& a, const SafetensorsTensor& b) { return a.name < b.name; });
  const auto twice = std::adjacent_find(
      tensors_.begin(), tensors_.end(),
      [](const SafetensorsTensor& a, const SafetensorsTensor& b) { return a.name == b.name; });
  if (twice == tensors_.end()) return absl::OkStatus();
  return InvalidArgument("tensor ", QuoteForError(twice->name), " is in ", files_[twice->file],
                         " and in ", files_[std::next(twice)->file]);
}

absl::Status SafetensorsSet::CheckIndex(const std::string& directory,
                                        std::span<const uint8_t> index) const {
  std::vector<bool> named(tensors_.size());
  const auto check = [&](const std::string& name, const std::string& file) {
    const SafetensorsTensor* tensor = Find(name);
    if (tensor == nullptr) {
      return Bad("weight_map's ", QuoteForError(name), " is not in ", QuoteForError(file));
    }
    const std::string& path = files_[tensor->file];
    if (path != Concat(directory, "/", file)) {
      return Bad("weight_map's ", QuoteForError(name), " is ", QuoteForError(file),
                 ", but the tensor is in ", path);
    }
    const size_t number = static_cast<size_t>(tensor - tensors_.data());
    if (named[number]) return Bad("weight_map's ", QuoteForError(name), " occurs twice");
    named[number] = true;
    return absl::OkStatus();
  };
  ACUITY_RETURN_IF_ERROR(ReadSafetensorsIndex(index, check));
  const auto unnamed = std::find(named.begin(), named.end(), false);
  if (unnamed == named.end()) return absl::OkStatus();
  const SafetensorsTensor& tensor = tensors_[unnamed - named.begin()];
  return Bad("weight_map has no ", QuoteForError(tensor.name), ", which is in ",
             files_[tensor.file]);
}

absl::Status SafetensorsSet::OpenIndexed(const std::string& directory,
                                         std::span<const uint8_t> index) {
  ACUITY_ASSIGN_OR_RETURN(const std::vector<std::string> files, FilesOf(index));
  for (const std::string& file : files) ACUITY_RETURN_IF_ERROR(AddFile(directory, file));
  ACUITY_RETURN_IF_ERROR(SortByName());
  return CheckIndex(directory, index);
}

absl::StatusOr<std::unique_ptr<SafetensorsSet>> SafetensorsSet::Open(const std::string& directory) {
  std::unique_ptr<SafetensorsSet> set(new SafetensorsSet);
  const absl::Status single = set->AddFile(directory, kSingleFile);
  if (single.ok()) return set;
  if (!absl::IsNotFound(single)) return single;
  absl::StatusOr<std::unique_ptr<MappedFile>> index =
      OpenModelFile(directory, kIndexFile, kMaxSafetensorsIndexBytes);
  if (absl::IsNotFound(index.status())) return NothingIn(directory);
  if (!index.ok()) return index.status();
  const absl::Status indexed = set->OpenIndexed(directory, (*index)->bytes());
  if (!indexed.ok()) return InFile(Concat(directory, "/", kIndexFile), indexed);
  return set;
}

}  // namespace acuity::engine
