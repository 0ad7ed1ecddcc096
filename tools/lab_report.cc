#include "tools/lab_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numbers>
#include <optional>
#include <set>

#include "tools/lab_html.h"

namespace vlr::tools {
namespace {

constexpr double kWidth =
    330;  // of a chart: a narrow phone's, so that its text is not shrunk there

Markup chart(double height, std::string_view what, const Markup& content) {
  return element("svg",
                 {{"class", "chart"},
                  {"viewBox", fmt::format("0 0 {} {}", kWidth, height)},
                  {"role", "img"},
                  {"aria-label", std::string(what)}},
                 content);
}

Markup line(std::string_view css, double x1, double y1, double x2, double y2) {
  return element("path", {{"class", std::string(css)},
                          {"d", fmt::format("M{:.1f},{:.1f}L{:.1f},{:.1f}", x1, y1, x2, y2)}});
}

Markup label(double x, double y, std::string_view anchor, std::string_view plain,
             std::string_view css = "", double degrees = 0) {
  return element(
      "text",
      {{"class", std::string(css)},
       {"text-anchor", std::string(anchor)},
       {"transform", fmt::format("translate({:.1f},{:.1f})rotate({:.1f})", x, y, degrees)}},
      plain);
}

// ---- Rooflines.

/// A logarithmic axis: data from low to high at pixels from begin to end.
struct LogAxis {
  double low, high, begin, end;

  double at(double v) const {
    return begin + (end - begin) * std::log(v / low) / std::log(high / low);
  }
  /// Powers of ten; of a short axis 2 and 5 times them too.
  std::vector<double> ticks() const {
    std::vector<double> out;
    const bool is_short = std::log10(high / low) < 1.7;
    for (int power = static_cast<int>(std::floor(std::log10(low)));; ++power) {
      for (const int times : {1, 2, 5}) {
        const double v = times * std::pow(10, power);
        if (!std::isfinite(v) || v > high * 1.0001) return out;
        if (v >= low * 0.9999 && (times == 1 || is_short)) out.push_back(v);
      }
    }
  }
};

/// "2", "0.5", "10k", "20M"
std::string tick_text(double v) {
  static constexpr std::pair<double, const char*> kSteps[] = {{1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
  for (const auto& [step, sign] : kSteps) {
    if (v >= step) return fmt::format("{:g}{}", v / step, sign);
  }
  return fmt::format("{:.4g}", v);
}

struct Point {
  double x, y;
  const Json* row;
};

/// Where there are FLOP, FLOP/s over FLOP a byte; else bytes a second over bytes.
std::vector<Point> points_of(const OpRows& op, bool of_bytes) {
  std::vector<Point> out;
  for (const Json* row : op.rows()) {
    const double flops = number(*row, "flops"), bytes = number(*row, "bytes");
    const Point p = of_bytes ? Point{bytes, 1e9 * number(*row, "gbytes_per_s"), row}
                             : Point{flops / bytes, 1e12 * number(*row, "tflops"), row};
    if (known(p.x) && p.x > 0 && known(p.y) && p.y > 0) out.push_back(p);
  }
  return out;
}

/// Names of lines; those closer to one another than a line of text stand together.
struct LineNames {
  struct Name {
    double x, y;
    std::string text;
  };
  std::vector<Name> names{};

  void add(double x, double y, const std::string& name) {
    if (!names.empty() && std::abs(names.back().y - y) < 17)
      names.back().text += ", " + name;
    else
      names.push_back({x, y, name});
  }
  Markup labels() const {
    Markup out;
    for (const Name& n : names) out += label(n.x, n.y, "end", n.text);
    return out;
  }
};

/// Points below the slope of the memory and the ceilings of the units.
Markup roofline(const OpRows& op, const Lab& lab) {
  constexpr double kHeight = 270;
  std::vector<Point> points = points_of(op, false);
  const bool of_bytes = points.empty();
  if (of_bytes) points = points_of(op, true);
  if (points.empty()) return {};

  std::set<std::string> bound_by;
  for (const Point& p : points) bound_by.insert(words(*p.row, "roof"));
  std::vector<Roof> slopes, ceilings;  // of the slopes those that bind one of the rows
  for (const Roof& roof : lab.roofs) {
    if (roof.is_flops && !of_bytes) ceilings.push_back(roof);
    if (!roof.is_flops && bound_by.contains(roof.name))
      (of_bytes ? ceilings : slopes).push_back(roof);
  }
  if (slopes.empty() && !of_bytes)
    std::ranges::copy_if(lab.roofs, std::back_inserter(slopes),
                         [](const Roof& r) { return !r.is_flops; });
  std::ranges::sort(ceilings, std::greater{}, &Roof::best);
  std::ranges::sort(slopes, std::greater{}, &Roof::best);

  // What is to be seen: the points, and ceilings unless they begin far to the right of all points.
  const auto [left, right] = std::ranges::minmax(points, {}, &Point::x);
  const auto [lowest, highest] = std::ranges::minmax(points, {}, &Point::y);
  double low_x = left.x / 1.6, high_x = right.x * 1.6, low_y = lowest.y / 1.6, high_y = highest.y;
  std::string beyond;
  const auto begins = [&](const Roof& c) { return slopes.empty() ? 0 : c.best / slopes[0].best; };
  for (const Roof& c : ceilings) {
    if (begins(c) < 12 * right.x) {
      high_x = std::max(high_x, begins(c) * 2.2);
      high_y = std::max(high_y, c.best);
    } else {
      beyond += fmt::format("{}{} from {}", beyond.empty() ? "" : ", ", c.name, figure(begins(c)));
    }
  }
  if (high_x < 8 * low_x) low_x /= 2, high_x *= 2;
  const double top = ceilings.empty() ? high_y : ceilings[0].best;
  if (!slopes.empty()) high_y = std::max(high_y, std::min(slopes[0].best * high_x, top));
  high_y *= 1.7;
  low_y = std::min(low_y, high_y / 8);

  const double unit = of_bytes ? 1e9 : lab.flops_unit;
  const std::string unit_name = of_bytes ? "GB/s" : lab.flops_name;
  const LogAxis x{low_x, high_x, 46, kWidth - 10}, y{low_y / unit, high_y / unit, kHeight - 42, 24};
  Markup out;
  for (const double v : x.ticks()) {
    out += line("grid", x.at(v), y.begin, x.at(v), y.end) +
           label(x.at(v), y.begin + 17, "middle", tick_text(v), "dim");
  }
  for (const double v : y.ticks()) {
    out += line("grid", x.begin, y.at(v), x.end, y.at(v)) +
           label(x.begin - 5, y.at(v) + 5, "end", tick_text(v), "dim");
  }
  out += label(0, 14, "start", unit_name, "dim") +
         label(kWidth - 2, kHeight - 6, "end", of_bytes ? "bytes" : "FLOP a byte", "dim");
  Markup of_slopes;
  std::string slope_names;
  LineNames of_ceilings;
  for (const Roof& s : slopes) {
    const double from = std::max(low_x, low_y / s.best), to = std::min(high_x, top / s.best);
    if (from >= to) continue;
    const double x1 = x.at(from), y1 = y.at(s.best * from / unit);
    const double x2 = x.at(to), y2 = y.at(s.best * to / unit);
    out += line("roof", x1, y1, x2, y2);
    // One name: there is no room for those of all caches, which the caption has.
    if (of_slopes.empty())
      of_slopes = label((x1 + x2) / 2 - 4, (y1 + y2) / 2 - 6, "middle", s.name, "",
                        std::atan2(y2 - y1, x2 - x1) * 180 / std::numbers::pi);
    slope_names += (slope_names.empty() ? "" : ", ") + s.name;
  }
  for (const Roof& c : ceilings) {
    const double from = std::max(low_x, begins(c)), at = y.at(c.best / unit);
    if (from >= high_x || c.best < low_y || c.best > high_y) continue;
    out += line("roof", x.at(from), at, x.end, at);
    of_ceilings.add(x.end, at - 5, c.name);
  }
  const double middle = static_cast<double>(op.impls.size() - 1) / 2;
  for (const Point& p : points) {
    const size_t series = op.series(*p.row);
    out += mark(series, x.at(p.x) + 5 * (static_cast<double>(series) - middle), y.at(p.y / unit),
                fmt::format("{} {}: {} {}, {} of {}", words(*p.row, "impl"), name_of(*p.row),
                            figure(p.y / unit), unit_name, percent(number(*p.row, "roof_pct")),
                            words(*p.row, "roof")));
  }
  Markup captions;
  if (slopes.size() > 1) captions += dim("Slopes from above: " + slope_names + ".");
  if (!beyond.empty()) captions += dim("Further right: " + beyond + ".");
  Markup legend;
  for (size_t i = 0; i < op.impls.size(); ++i)
    legend += element("span", key_mark(i) + text(op.impls[i]));
  return element(
      "figure", element("figcaption", op.op) +
                    chart(kHeight, "roofline of " + op.op, out + of_slopes + of_ceilings.labels()) +
                    element("div", {{"class", "legend"}}, legend) + captions);
}

// ---- Head.

Markup roofs_table(const Json& roofs, const Lab& lab) {
  Markup body;
  for (const Json& r : roofs) {
    const bool flops = words(r, "unit") == "FLOP/s";
    const auto rate = [&](std::string_view key) {  // 0: not known
      const double v = number(r, key);
      return number_cell(v > 0 ? figure(v / (flops ? lab.flops_unit : 1e9)) : "–");
    };
    const double uncertainty = number(r, "uncertainty_pct");
    body += element(
        "tr", cell("", words(r, "name")) + rate("best") +
                  cell("", flops ? lab.flops_name : "GB/s") + rate("before") + rate("after") +
                  number_cell(known(uncertainty) ? fmt::format("±{}", percent(uncertainty)) : "–") +
                  rate("limit"));
  }
  if (body.empty()) return element("p", "No roofs were measured.");
  return table({"<roof", "best", "<unit", "before", "after", "uncertainty", "limit of the chip"},
               body);
}

Markup head(const Json& result, const std::vector<OpRows>& ops, const Lab& lab) {
  Markup failures;
  size_t num_rows = 0, num_failed = 0;
  for (const OpRows& op : ops) {
    for (const Json* row : op.rows()) {
      ++num_rows;
      if (!failed(*row)) continue;
      ++num_failed;
      failures += element(
          "li", element("strong", {{"class", "bad"}}, "FAILED") +
                    text(fmt::format(" {}/{} {}: {}", op.op, words(*row, "impl"),
                                     brief(name_of(*row), 90), brief(words(*row, "error"), 300))));
    }
  }
  Markup out = element("p", fmt::format("Rows: {}. Ops: {}. FAILED: {}.", num_rows, ops.size(),
                                        num_failed == 0 ? "none" : std::to_string(num_failed)));
  if (num_failed > 0)
    out += details("Those that FAILED", element("ul", failures), num_failed <= 12);
  return out + context_facts(member(result, "context"), member(result, "rows")) +
         element("h3", "Roofs") +
         dim("Measured when first needed, and again at the end. The uncertainty is half of the "
             "distance "
             "between the two.") +
         roofs_table(member(result, "roofs"), lab);
}

// ---- Where a forward pass spends its time.

double milliseconds(const Json& workload) {
  if (const double s = number(workload, "seconds"); known(s)) return 1e3 * s;
  const std::string unit = words(workload, "time_unit");
  return number(workload, "real_time") * (unit == "s"    ? 1e3
                                          : unit == "us" ? 1e-3
                                          : unit == "ns" ? 1e-6
                                                         : 1);
}

/// What is not among the longest has one colour.
std::string part_class(size_t i) { return i < kNumSeries ? series_class(i) : "s7"; }

/// One bar, split by op; a part that is wide enough has its name on it.
Markup stacked_bar(const Json& times, double total) {
  constexpr double kHeight = 34, kCharacter = 8.5;
  Markup out;
  double x = 0;
  size_t i = 0;
  for (const Json& t : times) {
    const double share = std::fmax(0, 100 * number(t, "us") / total);
    const std::string name = fmt::format("{} {:.0f} %", words(t, "op"), share);
    out += rect(part_class(i++), fmt::format("{:.2f}%", x), 0, fmt::format("{:.2f}%", share),
                kHeight, fmt::format("{} {}", words(t, "run"), name));
    if (share / 100 * kWidth > kCharacter * static_cast<double>(name.size()))
      out += element(
          "text",
          {{"x", fmt::format("{:.2f}%", x + share / 2)}, {"y", "22"}, {"text-anchor", "middle"}},
          name);
    x += share;
  }
  return element("svg",
                 {{"class", "stack"},
                  {"width", "100%"},
                  {"height", pixels(kHeight)},
                  {"role", "img"},
                  {"aria-label", "time by op"}},
                 out);
}

Markup node_times(const Json& times, double total, bool by_place) {
  Markup body;
  size_t i = 0;
  for (const Json& t : times) {
    const Markup swatch = element(
        "svg", {{"class", "mark"}, {"width", "14"}, {"height", "13"}, {"aria-hidden", "true"}},
        rect(part_class(i++), "0", 0, "13", 13));
    const Markup name = by_place ? text(words(t, "op") + " " + words(t, "name"))
                                 : swatch + text(" ") + text(words(t, "op"));
    body += element("tr", element("td", {{"class", by_place ? "name" : "op"}}, name) +
                              cell("", words(t, "run")) +
                              number_cell(percent(100 * number(t, "us") / total)) +
                              number_cell(figure(number(t, "us") / 1e3)) + count_cell(t, "nodes") +
                              figure_cell(t, "TFLOP/s") + figure_cell(t, "GB/s") +
                              number_cell(percent(number(t, "roof_pct"))));
  }
  return table(
      {by_place ? "<place" : "<op", "<pass", "share", "ms", "nodes", "TFLOP/s", "GB/s", "of roof"},
      body);
}

Markup forward_passes(const Json& model) {
  Markup out;
  for (const Json& w : model) {
    const Json &ops = member(w, "ops"), &places = member(w, "places");
    double total = 0;
    for (const Json& t : ops) total += std::fmax(0, number(t, "us"));
    std::string summary = figure(milliseconds(w)) + " ms";
    for (const char* rate : {"pairs/s", "TFLOP/s"}) {
      if (known(number(w, rate))) summary += fmt::format(", {} {}", figure(number(w, rate)), rate);
    }
    out += element("h3", words(w, "name"));
    if (!(total > 0)) {
      out += element("p", summary + ". Its nodes were not timed.");
      continue;
    }
    out += element("p", fmt::format("{}. Shares are of the {} ms in nodes, launched op by op.",
                                    summary, figure(total / 1e3))) +
           stacked_bar(ops, total) + node_times(ops, total, false);
    if (!places.empty()) out += details("By place in a layer", node_times(places, total, true));
  }
  return out.empty() ? element("p", "No workload was run.") : out;
}

// ---- History.

struct Moment {
  std::string date, commit;
  double us = 0;
};

struct Series {
  const Json* row = nullptr;  ///< the last one
  std::vector<Moment> moments{};

  double ratio() const { return moments.back().us / moments.front().us; }
};

Markup sparkline(const std::vector<Moment>& moments) {
  constexpr double kWide = 150, kHigh = 34, kEdge = 7;
  const auto [low, high] = std::ranges::minmax(moments, {}, &Moment::us);
  const double middle = (low.us + high.us) / 2;
  const double half = std::max(high.us - middle, 0.02 * middle);  // noise shall look like noise
  const double step = (kWide - 2 * kEdge) / static_cast<double>(moments.size() - 1);
  std::string path;
  Markup marks;
  double x = kEdge;
  for (const Moment& m : moments) {
    const double y = kHigh / 2 - (m.us - middle) / half * (kHigh / 2 - kEdge);
    path += fmt::format("{}{:.1f},{:.1f}", path.empty() ? "M" : "L", x, y);
    marks += mark(0, x, y, fmt::format("{} {}: {} µs", m.date, m.commit, microseconds(m.us)));
    x += step;
  }
  return element("svg",
                 {{"width", pixels(kWide)},
                  {"height", pixels(kHigh)},
                  {"role", "img"},
                  {"aria-label", "time by result"}},
                 element("path", {{"class", "trend"}, {"d", path}}) + marks);
}

/// Of results in order of date, what is in two or more of them; the largest change first.
std::vector<Series> series_of(const std::vector<const Json*>& results) {
  std::map<std::string, Series> all;
  for (const Json* r : results) {
    const Json& context = member(*r, "context");
    for (const Json& row : member(*r, "rows")) {
      const double us = interval(row, "us").value;
      if (!known(us) || us <= 0) continue;
      const std::string shape = words(row, "shape");
      Series& s =
          all[fmt::format("{}\n{}\n{}\n{}", words(row, "op"), words(row, "impl"),
                          words(row, "dtype"), shape.empty() ? words(row, "label") : shape)];
      s.row = &row;
      s.moments.push_back({words(context, "date"), words(context, "commit"), us});
    }
  }
  std::vector<Series> out;
  for (auto& [key, s] : all) {
    if (s.moments.size() > 1) out.push_back(std::move(s));
  }
  std::ranges::stable_sort(out, std::greater{},
                           [](const Series& s) { return std::abs(std::log(s.ratio())); });
  return out;
}

Markup history_table(std::span<const Series> series) {
  Markup body;
  for (const Series& s : series) {
    const std::string css = s.ratio() < 0.99 ? "n good" : s.ratio() > 1.01 ? "n bad" : "n";
    const Moment &first = s.moments.front(), &last = s.moments.back();
    body += element("tr", shape_cell(*s.row, words(*s.row, "op") + " " + words(*s.row, "impl")) +
                              cell(css, change(s.ratio())) + element("td", sparkline(s.moments)) +
                              number_cell(microseconds(first.us), brief(first.commit, 12)) +
                              number_cell(microseconds(last.us), brief(last.commit, 12)) +
                              number_cell(std::to_string(s.moments.size())));
  }
  return table(
      {"<implementation and shape", "change", "<by result", "first µs", "last µs", "results"},
      body);
}

Markup history_section(const Json& result, std::span<const HistoryEntry> history) {
  const Json& context = member(result, "context");
  std::vector<const Json*> results = {&result};
  for (const HistoryEntry& entry : history) {
    const Json& other = member(entry.result, "context");
    if (device_of(other) == device_of(context) && words(other, "data") == words(context, "data") &&
        member(entry.result, "rows") != member(result, "rows"))
      results.push_back(&entry.result);
  }
  std::ranges::stable_sort(results, {},
                           [](const Json* r) { return words(member(*r, "context"), "date"); });
  const auto note = [](std::string_view plain) { return element("p", {{"class", "note"}}, plain); };
  if (results.size() < 2)
    return note("There is only one result of this device, this one: nothing to compare it with.");
  const std::vector<Series> series = series_of(results);
  if (series.empty())
    return note(
        fmt::format("The {} results of this device have no shape and implementation in "
                    "common: nothing to compare.",
                    results.size()));
  const std::span<const Series> all = series;
  const size_t shown = std::min<size_t>(all.size(), 30);
  Markup out =
      dim(fmt::format("{} results of this device, this one among them. The change is the "
                      "last time's to the first; the largest stands first. The height of a "
                      "line is its own range, 4 % at least.",
                      results.size())) +
      history_table(all.first(shown));
  if (shown < all.size())
    out += details(fmt::format("The other {}, which changed less", all.size() - shown),
                   history_table(all.subspan(shown)));
  return out;
}

// ---- Noise.

/// How far a time is from itself.
struct Noise {
  double pct = 0;
  size_t series = 0;
  std::string title;

  double size() const { return std::abs(pct); }
};
constexpr size_t kItself = 0, kControl = 3;  // marks that differ in colour and shape

std::vector<Noise> noise_of(const OpRows& op) {
  std::vector<Noise> out;
  for (const ShapeRows& shape : op.shapes) {
    std::optional<double> control;  // the rows of a shape share it
    for (const auto& [impl, row] : shape.rows) {
      const auto add = [&](double ratio, size_t series, const std::string& what) {
        out.push_back({deviation(ratio), series,
                       fmt::format("{}: {} {}", what, name_of(*row), change(ratio))});
      };
      if (const double v = interval(*row, "itself").value; known(v)) add(v, kItself, impl);
      const double v = interval(*row, "control").value;
      if (!known(v) || control == v) continue;
      add(v, kControl, op.impls[0]);
      control = v;
    }
  }
  return out;
}

/// A strip from -range to range percent, with the band of 1 %.
Markup noise_strip(const OpRows& op, const std::vector<Noise>& all, double range) {
  constexpr double kMiddle = kWidth / 2, kHalf = kMiddle - 12;
  const auto x = [&](double pct) { return kMiddle + kHalf * std::clamp(pct / range, -1.0, 1.0); };
  Markup out = rect("band", pixels(x(-1)), 2, pixels(x(1) - x(-1)), 30) +
               line("axis", x(0), 2, x(0), 32) + label(x(0), 47, "middle", "0", "dim");
  const double tick = range < 3 ? 1 : range;
  for (const double pct : {-tick, tick})
    out += label(std::clamp(x(pct), 28.0, kWidth - 28), 47, "middle", fmt::format("{:+.0f} %", pct),
                 "dim");
  size_t num_outside = 0;
  double most = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    out += mark(all[i].series, x(all[i].pct), 9 + static_cast<double>(i % 4) * 5.5, all[i].title);
    most = std::max(most, all[i].size());
    if (all[i].size() > 1) ++num_outside;
  }
  return element("figure", element("figcaption", op.op) +
                               dim(fmt::format("largest {}, {} of {} outside of 1 %",
                                               percent(most, 2), num_outside, all.size())) +
                               chart(52, "noise of " + op.op, out));
}

Markup noise_section(const std::vector<OpRows>& ops) {
  double most = 0;
  for (const OpRows& op : ops) {
    for (const Noise& n : noise_of(op)) most = std::max(most, n.size());
  }
  const double range = most < 1.4 ? 1.5 : std::clamp(std::ceil(1.1 * most), 3.0, 10.0);
  Markup strips;
  for (const OpRows& op : ops) {
    if (const std::vector<Noise> all = noise_of(op); !all.empty())
      strips += noise_strip(op, all, range);
  }
  if (strips.empty()) return element("p", "No time was compared with itself.");
  return dim("A time against itself should be 1. What it is off by is noise; a ratio that is "
             "nearer to 1 "
             "than that says nothing. The band is 1 %.") +
         (most > range ? dim("What is further off than the axis reaches stands at its end.")
                       : Markup{}) +
         element(
             "div", {{"class", "legend"}},
             element("span", key_mark(kItself) + text("every other sample against those between")) +
                 element("span", key_mark(kControl) +
                                     text("the first implementation in turns with itself"))) +
         element("div", {{"class", "charts"}}, strips);
}

}  // namespace

Result<std::vector<HistoryEntry>> read_history(const std::string& folder) {
  std::error_code error;
  std::vector<HistoryEntry> out;
  std::filesystem::directory_iterator at(folder, error);
  for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
    if (at->path().extension() != ".json" || !std::filesystem::is_regular_file(at->path()))
      continue;
    std::ifstream in(at->path());
    Json json = Json::parse(in, nullptr, false);
    if (member(json, "context").is_object() && member(json, "rows").is_array())
      out.push_back({at->path().filename().string(), std::move(json)});
  }
  if (error) return Status(Code::kNotFound, folder + ": " + error.message());
  std::ranges::sort(out, {}, &HistoryEntry::file);
  return out;
}

std::string html_report(const Json& result, std::span<const HistoryEntry> history) {
  const Lab lab(result);
  const std::vector<OpRows> ops = by_op(member(result, "rows"));
  Markup links, charts, tables;
  for (size_t i = 0; i < ops.size(); ++i) {
    const std::string id = fmt::format("op{}", i);
    links += element("a", {{"href", "#" + id}}, ops[i].op);
    charts += roofline(ops[i], lab);
    tables += element("h3", {{"id", id}}, ops[i].op) + op_times(ops[i], lab);
  }
  charts = charts.empty()
               ? element("p", "No row has a rate.")
               : dim("What each implementation reaches, and what the machine allows. "
                     "Implementations stand side by side at their shape; a point's title "
                     "names it.") +
                     element("div", {{"class", "charts"}}, charts);
  tables = ops.empty()
               ? element("p", "Nothing was timed.")
               : element("nav", links) +
                     dim("Sustained times with their 95 % intervals. A ratio is the time over "
                         "that of the first implementation, in turns with it: below 1 is faster.") +
                     tables;
  const std::string title = "Kernel lab: " + device_of(member(result, "context"));
  return page(title, element("h1", title) + head(result, ops, lab) +
                         section("rooflines", "Rooflines", charts) +
                         section("times", "Times by op", tables) +
                         section("model", "Where a forward pass spends its time",
                                 forward_passes(member(result, "model"))) +
                         section("history", "History", history_section(result, history)) +
                         section("noise", "Noise: each time against itself", noise_section(ops)));
}

}  // namespace vlr::tools
