/// Results of the lab as a page to read: one HTML file, without scripts, that needs no other.
#ifndef VLR_TOOLS_LAB_REPORT_H_
#define VLR_TOOLS_LAB_REPORT_H_

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "vlr/status.h"

namespace vlr::tools {

struct HistoryEntry {
  std::string file;  ///< its name, without the folder
  nlohmann::ordered_json result;
};

/// Every *.json of the folder that has "context" and "rows", by name; others are left out.
/// kNotFound: there is no such folder.
Result<std::vector<HistoryEntry>> read_history(const std::string& folder);

/// The machine, rooflines, times, where a forward pass spends its time, how times changed, and what
/// an implementation differs from itself. `result` is what `vlr lab time` writes, and may have
/// "model": rows of `vlr bench`. What is missing is left out. Of the history those results count
/// that are of the same device and data; `result` itself may be among them.
std::string html_report(const nlohmann::ordered_json& result,
                        std::span<const HistoryEntry> history);

/// Whether a candidate may replace a baseline, and why, on one page.
std::string html_verdict(const nlohmann::ordered_json& verdict);

}  // namespace vlr::tools

#endif  // VLR_TOOLS_LAB_REPORT_H_
