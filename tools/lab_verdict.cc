#include <fmt/format.h>

#include <algorithm>

#include "tools/lab_html.h"
#include "tools/lab_report.h"

namespace vlr::tools {
namespace {

/// How many elements are how many steps of the dtype away: 0, 1, 2, up to 4, up to 8, ..., more.
Markup ulp_histogram(const Json& ulps) {
  constexpr double kBar = 13, kHeight = 34;
  double all = 0;
  for (const Json& n : ulps) all += std::fmax(0, number_of(n));
  if (!(all > 0)) return text("–");
  Markup out;
  const size_t num = ulps.size();
  for (size_t i = 0; i < num; ++i) {
    const double n = std::fmax(0, number_of(ulps[i]));
    const double height = n > 0 ? std::max(2.0, kHeight * std::log1p(n) / std::log1p(all)) : 0.5;
    const std::string steps = i < 3         ? std::to_string(i)
                              : i + 1 < num ? fmt::format("up to {:.0f}", std::exp2(i - 1))
                                            : fmt::format("more than {:.0f}", std::exp2(i - 2));
    out += rect(i < 2          ? "s2"
                : i + 1 == num ? "s1"
                               : "s0",
                pixels(kBar * static_cast<double>(i)), kHeight - height, pixels(kBar - 2), height,
                steps + ": " + count(n));
  }
  return element("svg",
                 {{"width", pixels(kBar * static_cast<double>(num))},
                  {"height", pixels(kHeight)},
                  {"role", "img"},
                  {"aria-label", "steps of the dtype"}},
                 out);
}

Markup checks_table(const Json& checks) {
  Markup body;
  for (const Json& check : checks) {
    const std::string error = words(check, "error"), bits = words(check, "bits");
    Markup row = row_name(words(check, "shape"));
    if (const std::string skipped = words(check, "skipped"); !skipped.empty()) {
      row += element("td", {{"class", "dim"}, {"colspan", "8"}}, "skipped: " + skipped);
    } else if (error.empty()) {
      const Json& e = member(check, "errors");
      const double wrong = number(e, "wrong"), worst = number(e, "worst_tolerances");
      row += count_cell(e, "elements") + cell(wrong > 0 ? "n bad" : "n", count(wrong)) +
             element("td", {{"class", worst > 1 ? "n bad" : "n"}, {"title", words(e, "worst_at")}},
                     figure(worst)) +
             figure_cell(e, "max_abs") + figure_cell(e, "p999_abs") +
             number_cell(figure(number(e, "rms")),
                         fmt::format("of {}", figure(number(e, "reference_rms")))) +
             element("td", ulp_histogram(member(e, "ulps"))) +
             cell(bits == "different" ? "bad" : "", bits);
    } else {
      row += failed_cell(8, error);
    }
    body += element("tr", row);
  }
  if (body.empty()) return element("p", "Nothing was checked.");
  return dim("Distances from the reference. The bars count elements that are 0, 1, 2, up to 4, up "
             "to "
             "8 and so on steps of the dtype away, the last one more than all of them; their "
             "height "
             "is logarithmic.") +
         table({"<shape", "elements", "wrong", "worst, in tolerances", "largest", "99.9 %", "RMS",
                "<steps of the dtype", "<bits alone and in batches"},
               body);
}

/// Of "linear/wgmma" or "wgmma" the nodes that ran it.
double nodes_of(const Json& ran, const std::string& impl) {
  double nodes = 0;
  for (const auto& [name, n] : ran.items()) {
    if (name == impl || name.ends_with("/" + impl)) nodes += std::fmax(0, number_of(n));
  }
  return nodes;
}

Markup workloads_table(const Json& workloads, const std::string& candidate) {
  Markup body;
  for (const Json& w : workloads) {
    const Json& ran = member(w, "ran");
    std::string all;
    for (const auto& [name, n] : ran.items())
      all += fmt::format("{}{} {}", all.empty() ? "" : ", ", name, words_of(n));
    const double nodes = nodes_of(ran, candidate);
    const bench::Interval control = interval(w, "control");
    body += element("tr",
                    row_name(words(w, "name")) + figure_cell(w, "baseline_ms") +
                        figure_cell(w, "candidate_ms") + ratio_cell(w) +
                        number_cell(known(control.value)
                                        ? fmt::format("{:.4f} to {:.4f}", control.low, control.high)
                                        : "–") +
                        count_cell(w, "runs") +
                        cell(nodes > 0 ? "n" : "n bad", nodes > 0 ? count(nodes) : "none") +
                        cell("name", all));
  }
  if (body.empty()) return element("p", "No workload was run.");
  return table({"<workload", "baseline ms", "candidate ms", "ratio", "control", "runs",
                "nodes that ran the candidate", "<all that ran"},
               body);
}

Markup evaluation_table(const Json& eval) {
  Markup body;
  for (const Json& e : eval) {
    const auto changes = [&](std::string_view key) {
      const double n = number(e, key);
      return cell(n > 0 ? "n bad" : "n", count(n));
    };
    body += element("tr", row_name(words(e, "file")) + count_cell(e, "pairs") +
                              figure_cell(e, "max_distance") + figure_cell(e, "mean_distance") +
                              changes("order_changes") + changes("top1_changes") +
                              figure_cell(e, "baseline_max_distance_from_expected") +
                              figure_cell(e, "candidate_max_distance_from_expected"));
  }
  if (body.empty()) return element("p", "Nothing was evaluated.");
  return dim("Distances of log-odds: of candidate and baseline from one another, and of each from "
             "what is expected.") +
         table({"<file", "pairs", "largest", "mean", "order changed", "first changed",
                "baseline from expected", "candidate from expected"},
               body);
}

/// The verdict in large, and why it does not count, if it does not.
Markup verdict_words(const Json& verdict) {
  const std::string word = words(verdict, "verdict");
  Markup reasons;
  for (const Json& reason : member(verdict, "refused"))
    reasons += element("li", {{"class", "bad"}}, words_of(reason));
  Markup out = word.empty() ? text("no verdict") : verdict_word(word);
  if (!reasons.empty()) out += text(", ") + element("span", {{"class", "bad"}}, "REFUSED");
  out = element("p", {{"class", "verdict"}}, out);
  const auto note = [&](std::string_view head, const Markup& list) {
    if (!list.empty())
      out += element("div", {{"class", "note"}}, element("strong", head) + element("ul", list));
  };
  note("It is refused because", reasons);
  const std::string error = words(verdict, "error");
  note("It is not finished because", error.empty() ? Markup() : element("li", error));
  return out;
}

}  // namespace

std::string html_verdict(const Json& verdict) {
  const Lab lab(verdict);
  const std::string candidate = words(verdict, "candidate");
  const std::string title =
      fmt::format("{}: {} against {}", words(verdict, "op"), candidate, words(verdict, "baseline"));
  const Json &rows = member(verdict, "rows"), &workloads = member(verdict, "workloads");
  double nodes = 0;
  for (const Json& w : workloads) nodes += nodes_of(member(w, "ran"), candidate);
  const Json& batches = member(verdict, "batches");
  const std::string pairs =
      fmt::format("{} of {}", count(number(batches, "different")), count(number(batches, "pairs")));
  const Json& moved = member(verdict, "moved");
  Markup times;
  for (const OpRows& op : by_op(rows)) times += op_times(op, lab);
  if (times.empty()) times = element("p", "Nothing was timed.");
  return page(
      title,
      element("h1", title) + verdict_words(verdict) +
          facts({{"nodes that ran the candidate", workloads.empty() ? "" : count(nodes)},
                 {"pairs whose score depends on the batch", batches.empty() ? "" : pairs},
                 {"farthest that a score moved, by their RMS",
                  moved.empty() ? ""
                                : fmt::format("{}, {} is allowed", figure(number(moved, "share")),
                                              figure(number(moved, "most")))}}) +
          context_facts(member(verdict, "context"), rows) +
          section("checks", "Is it right?", checks_table(member(verdict, "checks"))) +
          section("times", "Is it faster?", times) +
          section("workloads", "Is the model faster?", workloads_table(workloads, candidate)) +
          section("evaluation", "Are the scores the same?",
                  evaluation_table(member(verdict, "eval"))));
}

}  // namespace vlr::tools
