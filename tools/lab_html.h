/// What the lab's pages are made of: JSON that may lack anything, figures, marks, tables of times.
#ifndef VLR_TOOLS_LAB_HTML_H_
#define VLR_TOOLS_LAB_HTML_H_

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "bench/support/statistics.h"
#include "tools/html.h"

namespace vlr::tools {

using Json = nlohmann::ordered_json;

// What is missing, or of another kind, is null, empty or not a number.
const Json& member(const Json& j, std::string_view key);
double number_of(const Json& j);
double number(const Json& j, std::string_view key);
/// Of a string its characters, of anything else its JSON.
std::string words_of(const Json& j);
std::string words(const Json& j, std::string_view key);
/// Of a number an interval of no width.
bench::Interval interval(const Json& j, std::string_view key);
inline bool known(double v) { return std::isfinite(v); }

std::string figure(double v);                   ///< three digits or so, whatever the size
std::string microseconds(double us);            ///< as the lab prints them
std::string count(double v);                    ///< "1,234,567"
std::string percent(double v, int digits = 1);  ///< "12.3 %"
inline double deviation(double ratio) { return 100 * (ratio - 1); }  ///< from 1, in percent
std::string change(double ratio);                                    ///< "-4.0 %"
std::string brief(const std::string& s, size_t most);
std::string spaced(const std::string& axes);  ///< with places to break a line at

Markup number_cell(std::string_view value, std::string_view below = "");
Markup count_cell(const Json& j, std::string_view key);
Markup figure_cell(const Json& j, std::string_view key);
Markup cell(std::string_view css, std::string_view plain);
Markup row_name(const std::string& name);  ///< the first cell of a row
/// "FAILED" and why, in a cell that is several columns wide.
Markup failed_cell(size_t columns, const std::string& error);
/// Its ratio, interval and verdict.
Markup ratio_cell(const Json& j);
Markup verdict_word(const std::string& verdict);

/// Scrolls by itself where the page is narrow. Heads are on the right, those with a '<' in front on
/// the left; `rows` are elements tr.
Markup table(std::initializer_list<std::string_view> heads, const Markup& rows);
Markup details(std::string_view summary, const Markup& content, bool open = false);
Markup section(std::string_view id, std::string_view title, const Markup& content);
Markup dim(std::string_view plain);  ///< a paragraph that explains
/// Names and values; those without a value are left out.
Markup facts(std::initializer_list<std::pair<std::string_view, std::string>> all);

constexpr size_t kNumSeries = 7;  ///< colours and shapes: s0 to s6 of the style sheet
std::string series_class(size_t series);
/// A point of a chart; the series says colour and shape.
Markup mark(size_t series, double x, double y, std::string_view title = "");
Markup key_mark(size_t series);  ///< to stand before a name in a line of text
/// Lengths are pixels or "12%".
Markup rect(std::string css, const std::string& x, double y, const std::string& width,
            double height, std::string_view title = "");
std::string pixels(double v);

/// Rows of one shape, by implementation.
struct ShapeRows {
  const Json* first = nullptr;
  std::map<std::string, const Json*> rows;
};

struct OpRows {
  std::string op;
  std::vector<std::string>
      impls{};  ///< in the order in which they occur: the first is the baseline
  std::vector<ShapeRows> shapes{};

  std::vector<const Json*> rows() const;
  size_t series(const Json& row) const;  ///< of its implementation
};

/// A shape and an implementation that occur twice have two lines.
std::vector<OpRows> by_op(const Json& rows);
std::string name_of(const Json& row);
bool failed(const Json& row);
/// What a model calls a row's shape, and its axes; `above` stands in front.
Markup shape_cell(const Json& row, std::string_view above = "");

struct Roof {
  std::string name;
  bool is_flops = false;
  double best = 0;
};

/// What the figures of a page have in common.
struct Lab {
  std::vector<Roof> roofs;
  double flops_unit = 1e12;
  std::string flops_name = "TFLOP/s";

  explicit Lab(const Json& result);
  bool by_bytes(const Json& row) const;  ///< whether it is bytes that bind it
};

std::string device_of(const Json& context);
/// The machine, the run, and what was read of clocks and power.
Markup context_facts(const Json& context, const Json& rows);
/// A column group for each implementation, and what its kernels cost.
Markup op_times(const OpRows& op, const Lab& lab);

}  // namespace vlr::tools

#endif  // VLR_TOOLS_LAB_HTML_H_
