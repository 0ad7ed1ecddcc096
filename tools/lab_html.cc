#include "tools/lab_html.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <set>

namespace vlr::tools {

using bench::Interval;

namespace {
constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();
}  // namespace

const Json& member(const Json& j, std::string_view key) {
  static const Json kNone;
  if (!j.is_object()) return kNone;
  const auto at = j.find(key);
  return at == j.end() ? kNone : *at;
}

double number_of(const Json& j) { return j.is_number() ? j.get<double>() : kMissing; }
double number(const Json& j, std::string_view key) { return number_of(member(j, key)); }

std::string words_of(const Json& j) {
  if (j.is_null()) return "";
  return j.is_string() ? j.get<std::string>()
                       : j.dump(-1, ' ', false, Json::error_handler_t::replace);
}
std::string words(const Json& j, std::string_view key) { return words_of(member(j, key)); }

Interval interval(const Json& j, std::string_view key) {
  const Json& v = member(j, key);
  if (!v.is_array() || v.size() < 3) {
    const double value = number_of(v.is_array() && !v.empty() ? v[0] : v);
    return {value, value, value};
  }
  return {number_of(v[0]), number_of(v[1]), number_of(v[2])};
}

std::string figure(double v) {
  if (!known(v)) return "–";
  if (v == 0) return "0";
  const double size = std::abs(v);
  if (size < 0.01 || size >= 1e7) return fmt::format("{:.3g}", v);
  return fmt::format("{:.{}f}", v, size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

std::string microseconds(double us) {
  if (!known(us)) return "–";
  return fmt::format("{:.{}f}", us, us < 100 ? 2 : us < 10000 ? 1 : 0);
}

std::string count(double v) {
  if (!known(v)) return "–";
  const std::string digits = fmt::format("{:.0f}", std::abs(v));
  std::string out = v < 0 ? "-" : "";
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

std::string percent(double v, int digits) {
  return known(v) ? fmt::format("{:.{}f} %", v, digits) : "–";
}

std::string change(double ratio) {
  return known(ratio) ? fmt::format("{:+.1f} %", deviation(ratio)) : "–";
}

std::string brief(const std::string& s, size_t most) {
  if (s.size() <= most) return s;
  size_t end = most;
  while (end > 0 && (s[end] & 0xC0) == 0x80) --end;  // not within a character of several bytes
  return s.substr(0, end) + " …";
}

std::string spaced(const std::string& axes) {
  std::string out;
  for (const char c : axes) {
    out += c;
    if (c == ',') out += ' ';
    if (c == '/') out += "\u200b";  // a space of no width
  }
  return out;
}

Markup number_cell(std::string_view value, std::string_view below) {
  Markup content = text(value);
  if (!below.empty()) content += element("small", below);
  return element("td", {{"class", "n"}}, content);
}
Markup count_cell(const Json& j, std::string_view key) {
  return number_cell(count(number(j, key)));
}
Markup figure_cell(const Json& j, std::string_view key) {
  return number_cell(figure(number(j, key)));
}
Markup cell(std::string_view css, std::string_view plain) {
  return element("td", {{"class", std::string(css)}}, plain);
}

Markup row_name(const std::string& name) {
  return element("th", {{"class", "key"}, {"scope", "row"}, {"title", name}},
                 brief(spaced(name), 120));
}

Markup failed_cell(size_t columns, const std::string& error) {
  return element("td", {{"class", "bad"}, {"colspan", std::to_string(columns)}, {"title", error}},
                 element("strong", "FAILED") + text(" ") + text(brief(error, 200)));
}

Markup verdict_word(const std::string& verdict) {
  const std::string css = verdict == "FASTER" ? "good" : verdict == "SLOWER" ? "bad" : "";
  return element("span", {{"class", css}}, verdict);
}

Markup ratio_cell(const Json& j) {
  const Interval r = interval(j, "ratio");
  if (!known(r.value)) return number_cell("–");
  return element("td", {{"class", "n"}},
                 text(fmt::format("{:.4f} ", r.value)) + verdict_word(words(j, "verdict")) +
                     element("small", fmt::format("{:.4f} to {:.4f}", r.low, r.high)));
}

Markup table(std::initializer_list<std::string_view> heads, const Markup& rows) {
  Markup row;
  for (std::string_view h : heads) {
    const bool left = h.starts_with('<');
    if (left) h.remove_prefix(1);
    row += element("th", {{"class", left ? "" : "n"}, {"scope", "col"}}, h);
  }
  return element("div", {{"class", "scroll"}},
                 element("table", element("thead", element("tr", row)) + element("tbody", rows)));
}

Markup details(std::string_view summary, const Markup& content, bool open) {
  return element("details", {{"open", open ? "open" : ""}}, element("summary", summary) + content);
}

Markup section(std::string_view id, std::string_view title, const Markup& content) {
  return element("section", {{"id", std::string(id)}}, element("h2", title) + content);
}

Markup dim(std::string_view plain) { return element("p", {{"class", "dim"}}, plain); }

Markup facts(std::initializer_list<std::pair<std::string_view, std::string>> all) {
  Markup out;
  for (const auto& [name, value] : all) {
    if (!value.empty()) out += element("div", element("dt", name) + element("dd", value));
  }
  return element("dl", out);
}

std::string series_class(size_t series) { return fmt::format("s{}", series % kNumSeries); }

Markup mark(size_t series, double x, double y, std::string_view title) {
  static constexpr std::array<const char*, kNumSeries> kPaths = {
      "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z",
      "M-4,-4h8v8h-8z",
      "M0,-5L5,4H-5z",
      "M0,-5.7L5.7,0L0,5.7L-5.7,0z",
      "M0,5L5,-4H-5z",
      "M-1.7,-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
      "M-5,-2.5h10v5h-10z"};
  return element("path",
                 {{"class", fmt::format("point {}", series_class(series))},
                  {"d", kPaths[series % kNumSeries]},
                  {"transform", fmt::format("translate({:.1f},{:.1f})", x, y)}},
                 title.empty() ? Markup{} : element("title", title));
}

Markup key_mark(size_t series) {
  return element("svg",
                 {{"class", "mark"}, {"width", "14"}, {"height", "14"}, {"aria-hidden", "true"}},
                 mark(series, 7, 7)) +
         text(" ");
}

std::string pixels(double v) { return fmt::format("{:.1f}", v); }

Markup rect(std::string css, const std::string& x, double y, const std::string& width,
            double height, std::string_view title) {
  return element("rect",
                 {{"class", std::move(css)},
                  {"x", x},
                  {"y", pixels(y)},
                  {"width", width},
                  {"height", pixels(height)}},
                 title.empty() ? Markup{} : element("title", title));
}

std::vector<const Json*> OpRows::rows() const {
  std::vector<const Json*> out;
  for (const ShapeRows& s : shapes) {
    for (const auto& [impl, row] : s.rows) out.push_back(row);
  }
  return out;
}

size_t OpRows::series(const Json& row) const {
  return static_cast<size_t>(std::ranges::find(impls, words(row, "impl")) - impls.begin());
}

std::string name_of(const Json& row) {
  const std::string name = words(row, "name");
  return name.empty() ? words(row, "shape") : name;
}

bool failed(const Json& row) { return !words(row, "error").empty(); }

std::vector<OpRows> by_op(const Json& rows) {
  std::vector<OpRows> out;
  for (const Json& row : rows) {
    if (!row.is_object()) continue;
    const std::string op = words(row, "op"), impl = words(row, "impl"), name = name_of(row);
    auto group = std::ranges::find(out, op, &OpRows::op);
    if (group == out.end()) group = out.insert(out.end(), {.op = op});
    if (std::ranges::find(group->impls, impl) == group->impls.end()) group->impls.push_back(impl);
    auto shape = std::ranges::find_if(group->shapes, [&](const ShapeRows& s) {
      return name_of(*s.first) == name && !s.rows.contains(impl);
    });
    if (shape == group->shapes.end())
      shape = group->shapes.insert(group->shapes.end(), {.first = &row, .rows = {}});
    shape->rows[impl] = &row;
  }
  return out;
}

Markup shape_cell(const Json& row, std::string_view above) {
  std::string axes = words(row, "shape"), name = words(row, "dtype") + " " + words(row, "label");
  if (axes.empty()) axes = words(row, "name");
  return element("th", {{"class", "key"}, {"scope", "row"}, {"title", name_of(row)}},
                 (above.empty() ? Markup{} : element("strong", above) + text(" ")) + text(name) +
                     element("small", brief(spaced(axes), 70)));
}

Lab::Lab(const Json& result) {
  double most = 0;
  for (const Json& r : member(result, "roofs")) {
    const Roof roof{words(r, "name"), words(r, "unit") == "FLOP/s", number(r, "best")};
    if (!(roof.best > 0)) continue;
    if (roof.is_flops) most = std::max(most, roof.best);
    roofs.push_back(roof);
  }
  if (most > 0 && most < 2e12) flops_unit = 1e9, flops_name = "GFLOP/s";
}

bool Lab::by_bytes(const Json& row) const {
  const auto roof = std::ranges::find(roofs, words(row, "roof"), &Roof::name);
  return roof != roofs.end() ? !roof->is_flops : !(number(row, "flops") > 0);
}

std::string device_of(const Json& context) {
  const std::string gpu = words(context, "gpu");
  if (!gpu.empty()) return gpu;
  const std::string cpu = words(context, "cpu"), threads = words(context, "threads");
  return threads.empty() ? cpu : cpu + ", " + threads + " threads";
}

namespace {

std::string range_of(const Json& rows, std::string_view key, std::string_view unit) {
  double low = kMissing, high = kMissing;
  for (const Json& row : rows) {
    low = std::fmin(low, number(row, key));  // fmin and fmax pass over what is not a number
    high = std::fmax(high, number(row, key));
  }
  if (!known(low)) return "";
  if (low == high) return fmt::format("{:.0f} {}", low, unit);
  return fmt::format("{:.0f} to {:.0f} {}", low, high, unit);
}

/// A share of 48 pixels, in a cell of a table.
Markup bar(double pct, size_t series) {
  if (!known(pct)) return {};
  const std::string width = fmt::format("{:.1f}%", std::clamp(pct, 0.0, 100.0));
  return element("svg",
                 {{"class", "bar"}, {"width", "48"}, {"height", "6"}, {"aria-hidden", "true"}},
                 rect("ground", "0", 0, "100%", 6) + rect(series_class(series), "0", 0, width, 6));
}

struct Column {
  std::string head, key;
  std::function<Markup(const Json&)> cell;
};

std::vector<Column> time_columns(const Lab& lab, size_t series) {
  return {
      {"µs", "us",
       [](const Json& row) {
         const Interval us = interval(row, "us");
         return number_cell(
             microseconds(us.value),
             known(us.low) && us.value > 0 ? fmt::format("±{}", percent(100 * us.spread())) : "");
       }},
      {"rate", "us",
       [&lab](const Json& row) {
         if (lab.by_bytes(row)) return number_cell(figure(number(row, "gbytes_per_s")), "GB/s");
         return number_cell(figure(number(row, "tflops") * 1e12 / lab.flops_unit), lab.flops_name);
       }},
      {"of roof", "roof_pct",
       [series](const Json& row) {
         const double pct = number(row, "roof_pct");
         return element("td", {{"class", "n"}, {"title", fmt::format("of {}", words(row, "roof"))}},
                        text(percent(pct)) + bar(pct, series));
       }},
      {"MHz", "sm_mhz", [](const Json& row) { return figure_cell(row, "sm_mhz"); }},
      {"W", "watts", [](const Json& row) { return figure_cell(row, "watts"); }},
      {"GFLOP/J", "tflops_per_joule",
       [](const Json& row) { return number_cell(figure(1e3 * number(row, "tflops_per_joule"))); }},
      {"ratio", "ratio", ratio_cell}};
}

/// A column group for each of some implementations.
Markup time_table(const OpRows& op, const Lab& lab, size_t first, size_t last) {
  Markup names = element("th", {{"rowspan", "2"}, {"class", "key"}, {"scope", "col"}}, "shape");
  Markup borders = element("colgroup", {{"span", "1"}}), heads, body;
  std::vector<std::vector<Column>> groups;
  for (size_t i = first; i < last; ++i) {
    std::vector<Column> columns = time_columns(lab, i);
    std::erase_if(columns, [&](const Column& c) {
      return std::ranges::none_of(op.shapes, [&](const ShapeRows& s) {
        const auto at = s.rows.find(op.impls[i]);
        return at != s.rows.end() && !member(*at->second, c.key).is_null();
      });
    });
    if (columns.empty()) columns.push_back({"", "", [](const Json&) { return number_cell("–"); }});
    const std::string width = std::to_string(columns.size());
    borders += element("colgroup", {{"class", "g"}, {"span", width}});
    names +=
        element("th", {{"colspan", width}, {"scope", "colgroup"}}, key_mark(i) + text(op.impls[i]));
    for (const Column& c : columns)
      heads += element("th", {{"class", "n"}, {"scope", "col"}}, c.head);
    groups.push_back(std::move(columns));
  }
  for (const ShapeRows& shape : op.shapes) {
    Markup line = shape_cell(*shape.first);
    for (size_t i = first; i < last; ++i) {
      const std::vector<Column>& columns = groups[i - first];
      const auto at = shape.rows.find(op.impls[i]);
      const std::string width = std::to_string(columns.size());
      if (at == shape.rows.end()) {
        line += element("td", {{"class", "dim"}, {"colspan", width}}, "–");
      } else if (failed(*at->second)) {
        line += failed_cell(columns.size(), words(*at->second, "error"));
      } else {
        for (const Column& c : columns) line += c.cell(*at->second);
      }
    }
    body += element("tr", line);
  }
  return element(
      "div", {{"class", "scroll"}},
      element("table", borders + element("thead", element("tr", names) + element("tr", heads)) +
                           element("tbody", body)));
}

/// What kernels are built of; those that differ in their grid only share a line.
Markup kernel_costs(const OpRows& op) {
  struct Use {
    double fewest = 0, most = 0;
    int shapes = 0;
  };
  std::map<std::string, Use> uses;
  std::vector<std::pair<std::string, Markup>> lines;
  for (const Json* row : op.rows()) {
    for (Json k : member(*row, "kernels")) {
      if (!k.is_object()) continue;
      const double blocks = number(k, "blocks");
      k.erase("blocks");
      const std::string key = words(*row, "impl") + words_of(k);
      auto [at, is_new] = uses.try_emplace(key, Use{blocks, blocks, 0});
      at->second.fewest = std::min(at->second.fewest, blocks);
      at->second.most = std::max(at->second.most, blocks);
      ++at->second.shapes;
      if (!is_new) continue;
      std::string sass;
      for (const auto& [name, n] : member(k, "sass").items()) {
        if (n != 0) sass += (sass.empty() ? "" : ", ") + name + " " + words_of(n);
      }
      const double local = number(k, "local_bytes");
      lines.emplace_back(
          key, element("td", key_mark(op.series(*row)) + text(words(*row, "impl"))) +
                   element("td", {{"class", "name"}, {"title", words(k, "name")}},
                           brief(words(k, "name"), 120)) +
                   number_cell(words(k, "threads")) + number_cell(words(k, "registers")) +
                   element("td", {{"class", local > 0 ? "n bad" : "n"}}, count(local)) +
                   number_cell(count(number(k, "shared_bytes"))) +
                   number_cell(words(k, "blocks_per_sm")) +
                   number_cell(percent(100 * number(k, "occupancy"), 0)) + cell("", sass));
    }
  }
  if (lines.empty()) return {};
  Markup body;
  for (const auto& [key, cells] : lines) {
    const Use& use = uses[key];
    body += element("tr", cells +
                              number_cell(!(use.fewest < use.most)
                                              ? count(use.most)
                                              : count(use.fewest) + " to " + count(use.most)) +
                              number_cell(std::to_string(use.shapes)));
  }
  return details(
      "What its kernels take: registers, memory, occupancy, instructions",
      table({"<implementation", "<kernel", "threads", "registers", "local bytes", "shared bytes",
             "blocks an SM", "occupancy", "<instructions", "blocks", "launches"},
            body));
}

}  // namespace

Markup context_facts(const Json& context, const Json& rows) {
  std::set<std::string> reasons;
  for (const Json& row : rows) reasons.insert(words(row, "throttled_by"));
  reasons.erase("");
  std::string date = words(context, "date");
  std::ranges::replace(date, 'T', ' ');
  std::string all_reasons;
  for (const std::string& r : reasons) all_reasons += (all_reasons.empty() ? "" : "; ") + r;
  Markup out = facts({{"device", device_of(context)},
                      {"architecture", words(context, "gpu_architecture")},
                      {"driver", words(context, "driver")},
                      {"CUDA runtime", words(context, "cuda_runtime")},
                      {"commit", words(context, "commit")},
                      {"date", date},
                      {"operands", words(context, "data")},
                      {"settled clock", range_of(rows, "sm_mhz", "MHz")},
                      {"lowest clock seen", range_of(rows, "sm_mhz_least", "MHz")},
                      {"temperature", range_of(rows, "celsius", "°C")},
                      {"power", range_of(rows, "watts", "W")},
                      {"clock held back by", all_reasons}});
  Markup all;
  for (const auto& [key, value] : context.items())
    all += element("tr", cell("", key) + cell("name", brief(words_of(value), 400)));
  if (!context.is_object() || context.empty()) return out;
  return out +
         details("All that is known of the machine and the run", table({"<name", "<value"}, all));
}

Markup op_times(const OpRows& op, const Lab& lab) {
  constexpr size_t kGroups = 3;  // of columns in one table: what a page is wide
  Markup out;
  for (size_t i = 0; i < op.impls.size(); i += kGroups)
    out += time_table(op, lab, i, std::min(i + kGroups, op.impls.size()));
  return out + kernel_costs(op);
}

}  // namespace vlr::tools
