// Writes the Hugging Face directories that golden/architectures.json.gz describes.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace acuity::engine {

// The storage type of every tensor; the goldens' values are exact in each.
enum class StoredType { kFloat32, kBFloat16, kFloat16 };

// Writes config.json and model.safetensors of a golden's row. `folder` must exist.
void WriteTinyDirectory(const nlohmann::json& row, StoredType type, const std::string& folder);

}  // namespace acuity::engine
