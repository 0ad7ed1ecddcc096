#include "tools/node_times.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string_view>
#include <tuple>

namespace vlr::tools {
namespace {

/// "layers.3.mlp.down_proj" -> "layers.*.mlp.down_proj"
std::string place_of(std::string_view name) {
  std::string out;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    const bool number =
        !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    out.append(begin > 0 ? "." : "").append(number ? "*" : part);
    begin = end + 1;
  }
  return out;
}

/// Three digits or so, whatever the size.
std::string figure(double v) {
  const int digits = v >= 100 ? 0 : v >= 10 ? 1 : v >= 1 ? 2 : 3;
  return fmt::format("{:.{}f}", v, digits);
}

double share(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

}  // namespace

double total_seconds(std::span<const NodeTiming> nodes) {
  double sum = 0;
  for (const NodeTiming& t : nodes) sum += t.seconds;
  return sum;
}

std::vector<TimeRow> group_times(std::span<const NodeTiming> nodes, GroupBy by,
                                 const bench::Peak& peak) {
  std::map<std::tuple<std::string, std::string, std::string>, TimeRow> rows;
  for (const NodeTiming& t : nodes) {
    TimeRow key{.run = t.run, .op = t.op, .name = t.name};
    if (by != GroupBy::kNode) key.run = t.run.substr(0, t.run.find('.'));
    if (by != GroupBy::kNode) key.name = by == GroupBy::kOp ? "" : place_of(t.name);
    TimeRow& row = rows.try_emplace({key.run, key.op, key.name}, key).first->second;
    ++row.nodes;
    row.seconds += t.seconds;
    row.flops += t.flops;
    row.bytes += t.bytes;
    if (peak.flops > 0)
      row.roof_seconds += bench::roof_seconds({.bytes = t.bytes, .flops = t.flops}, peak);
  }
  std::vector<TimeRow> out;
  for (auto& [key, row] : rows) out.push_back(std::move(row));
  std::stable_sort(out.begin(), out.end(),
                   [](const TimeRow& a, const TimeRow& b) { return a.seconds > b.seconds; });
  return out;
}

void print_times(std::span<const TimeRow> rows, double total, size_t most) {
  fmt::print("  {:<10} {:<17} {:>5} {:>11} {:>6} {:>8} {:>7} {:>7}  {}\n", "run", "op", "nodes",
             "us", "share", "TFLOP/s", "GB/s", "of roof", "");
  for (const TimeRow& r : rows.first(std::min(most, rows.size()))) {
    const double seconds = std::max(r.seconds, 1e-12);
    const std::string roof =
        r.roof_seconds > 0 ? fmt::format("{:.1f}%", share(r.roof_seconds, seconds)) : "-";
    fmt::print("  {:<10} {:<17} {:>5} {:>11.1f} {:>5.1f}% {:>8} {:>7} {:>7}  {}\n", r.run, r.op,
               r.nodes, 1e6 * r.seconds, share(r.seconds, total), figure(1e-12 * r.flops / seconds),
               figure(1e-9 * r.bytes / seconds), roof, r.name);
  }
}

nlohmann::ordered_json times_json(std::span<const TimeRow> rows, double total) {
  auto out = nlohmann::ordered_json::array();
  for (const TimeRow& r : rows) {
    const double seconds = std::max(r.seconds, 1e-12);
    nlohmann::ordered_json row = {{"run", r.run}, {"op", r.op}};
    if (!r.name.empty()) row["name"] = r.name;
    row["nodes"] = r.nodes;
    row["us"] = 1e6 * r.seconds;
    row["share_pct"] = share(r.seconds, total);
    row["TFLOP/s"] = 1e-12 * r.flops / seconds;
    row["GB/s"] = 1e-9 * r.bytes / seconds;
    if (r.roof_seconds > 0) row["roof_pct"] = share(r.roof_seconds, seconds);
    out.push_back(std::move(row));
  }
  return out;
}

}  // namespace vlr::tools
