/// vlr lab: single kernels checked and timed, and what one of them does to a model.
#include "bench/support/lab.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "bench/support/all_ops.h"
#include "engine/runtime/safetensors.h"
#include "kernels/core/load.h"
#include "tools/common.h"
#include "tools/lab_report.h"
#include "tools/verdict.h"

namespace vlr::tools {
namespace {

using bench::Data;
using bench::Json;

/// The values of a file's largest floating-point tensor, of 16 million of them at most.
Result<Data> read_data(const std::string& path) {
  constexpr int64_t kMost = int64_t{1} << 24;
  VLR_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::open(path));
  const StoredTensor* largest = nullptr;
  for (const auto& [name, t] : file.tensors()) {
    if (bench::is_float(t.dtype) && (!largest || t.bytes() > largest->bytes())) largest = &t;
  }
  if (!largest) return Status(Code::kInvalidArgument, path + ": has no tensor in f32, bf16 or f16");
  const int64_t count = std::min(largest->numel(), kMost);
  std::vector<std::byte> aligned(largest->data,
                                 largest->data + count * dtype_bytes(largest->dtype));
  const ConstTensor values(aligned.data(), largest->dtype, {count});
  Data data;
  for (int64_t i = 0; i < count; ++i) data.weights.push_back(load_f32(values, i));
  return data;
}

/// The elements of a file's list of this name, which has some.
Result<Json> read_json(const std::string& path, const char* list, const char* by) {
  std::ifstream in(path);
  if (!in) return Status(Code::kNotFound, path + ": cannot be read");
  Json json = Json::parse(in, nullptr, false);
  if (!json.is_object() || !json.contains(list) || !json[list].is_array() || json[list].empty())
    return Status(Code::kInvalidArgument,
                  fmt::format("{}: expected \"{}\" as {} writes them", path, list, by));
  return json;
}

struct ReportCommand {
  std::vector<std::string> results, models;
  std::string history, out;

  int run() const {
    Json all = {{"rows", Json::array()}, {"model", Json::array()}};
    for (const std::string& path : results) {
      auto json = read_json(path, "rows", "`vlr lab time --json`");
      if (!json) return fail(json.error());
      if (!all.contains("context")) {
        all["context"] = json->value("context", Json::object());
        all["roofs"] = json->value("roofs", Json::array());
      }
      for (Json& row : (*json)["rows"]) {
        if (!row.contains("skipped")) all["rows"].push_back(std::move(row));
      }
    }
    for (const std::string& path : models) {
      auto json = read_json(path, "benchmarks", "`vlr bench --json`");
      if (!json) return fail(json.error());
      for (Json& row : (*json)["benchmarks"]) all["model"].push_back(std::move(row));
    }
    std::vector<HistoryEntry> before;
    if (!history.empty()) {
      auto read = read_history(history);
      if (!read) return fail(read.error());
      before = *std::move(read);
    }
    const Status s = write_line(out, html_report(all, before));
    return s.ok() ? kServed : fail(s);
  }
};

}  // namespace

void add_lab(CLI::App& app, Run& run) {
  // Lives as long as what the commands keep of it.
  static const std::vector<bench::OpLab> ops = bench::all_ops();
  bench::LabOptions defaults;
  defaults.read_data = read_data;
  bench::add_lab_commands(app, ops, run, defaults);
  add_verdict(*app.add_subcommand(
                  "verdict", "One kernel: is it right, is it faster, and what it does to a model"),
              ops, run);
  auto report = std::make_shared<ReportCommand>();
  CLI::App& sub = *app.add_subcommand("report", "One HTML file of results");
  sub.add_option("results", report->results, "What `time --json` wrote")->required();
  sub.add_option("--model", report->models,
                 "What `vlr bench --json` wrote: where a pass spends its time");
  sub.add_option("--history", report->history, "A folder of earlier results, as bench/results");
  sub.add_option("--out", report->out, "The HTML file")->required();
  sub.callback([report, &run] { run = [report] { return report->run(); }; });
}

}  // namespace vlr::tools
