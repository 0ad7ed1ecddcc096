/// JSON text that may be hostile -> nlohmann::json, without exceptions; text files read and
/// written.
#ifndef VLR_MODEL_JSON_H_
#define VLR_MODEL_JSON_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "kernels/core/text.h"  // in_quotes()
#include "vlr/status.h"

namespace vlr {

/// Parses a whole text; of equal keys the last one counts. kDataLoss for anything that is not JSON
/// (its message gives the position), is nested deeper than 64 levels or longer than 64 MB.
Result<nlohmann::json> parse_json(std::string_view text);

/// A value of others in a message: printable, and cut as in_quotes() cuts.
std::string shown(const nlohmann::json& value);

/// Reads a regular file as it is; kNotFound if it cannot be opened, kInvalidArgument if it is
/// something else, as a FIFO, which may be waited for only where `pipes` says so. kDataLoss if it is
/// longer than `max_bytes`, or a Git LFS pointer, which stands for a file that was not fetched.
Result<std::string> read_text_file(const std::string& path, int64_t max_bytes, bool pipes = false);

/// Whether these are the first bytes of what Git LFS leaves in place of a file.
bool is_lfs_pointer(std::string_view text);
/// What to say of a file that is one.
Status lfs_pointer(const std::string& path);

/// Writes a file, or replaces it; kInvalidArgument with the reason if it cannot. A file that could
/// not be completed is removed, if it is one.
Status write_text_file(const std::string& path, std::string_view text);

}  // namespace vlr

#endif  // VLR_MODEL_JSON_H_
