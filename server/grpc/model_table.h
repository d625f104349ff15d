// The models that the daemon serves, by name. Fixed after start.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/engine.h"
#include "server/grpc/request_totals.h"

namespace acuity::server {

struct ServedModel {
  RequestTotals* observer = nullptr;  // not owned; outlives the engine
  std::unique_ptr<engine::Engine> engine;
};

class ModelTable {
 public:
  void Add(const std::string& name, ServedModel model) { models_[name] = std::move(model); }
  const std::map<std::string, ServedModel>& all() const { return models_; }

  // NotFound names the model and those there are.
  absl::StatusOr<const ServedModel*> Find(const std::string& name) const {
    const auto it = models_.find(name);
    if (it != models_.end()) return &it->second;
    std::string names;
    for (const auto& [known, model] : models_)
      absl::StrAppend(&names, names.empty() ? "" : ", ", known);
    return absl::NotFoundError(
        absl::StrCat("model: \"", name.substr(0, 128), "\" is not served here; there is ", names));
  }

 private:
  std::map<std::string, ServedModel> models_;
};

}  // namespace acuity::server
