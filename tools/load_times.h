/// How fast a checkpoint's files are read by themselves: what loading a model is held against.
#ifndef VLR_TOOLS_LOAD_TIMES_H_
#define VLR_TOOLS_LOAD_TIMES_H_

#include <nlohmann/json.hpp>
#include <string>

#include "engine/runtime/file_reader.h"
#include "vlr/status.h"

namespace vlr::tools {

/// Takes a checkpoint's files out of the page cache, as far as nobody else maps them.
Status drop_from_page_cache(const std::string& folder);

/// Reads all of its files into memory, as a load would, and drops what was read.
Result<ReadStats> read_whole_files(const std::string& folder, const ReadOptions& options);

nlohmann::ordered_json to_json(const ReadStats& stats);

}  // namespace vlr::tools

#endif  // VLR_TOOLS_LOAD_TIMES_H_
