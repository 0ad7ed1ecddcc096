/// vlr plan: bytes by purpose, from config.json alone.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/json.h"
#include "tools/common.h"

namespace vlr::tools {
namespace {

/// A plan as lines for people.
class Table {
 public:
  void text(std::string_view, const std::string& value) {
    if (!value.empty()) fmt::print("{}\n", value);
  }
  void bytes(std::string_view name, int64_t value) {
    fmt::print("{:<40} {:>12.1f} MB\n", name, static_cast<double>(value) / 1e6);
  }
  void layers(std::string_view, const std::vector<MemoryPlan::Layer>&) {}  // too many to read
  void choices(std::string_view, const std::vector<MemoryPlan::Choice>& list) {
    for (const MemoryPlan::Choice& c : list) fmt::print("{:<40} {}\n", c.name, c.value);
  }
  void parts(std::string_view, std::string_view prefix, const std::vector<MemoryPlan::Part>& list) {
    for (const MemoryPlan::Part& p : list) bytes(std::string(prefix) + p.name, p.bytes);
  }
};

/// A plan as one JSON object.
class Json {
 public:
  void text(std::string_view name, const std::string& value) {
    if (!value.empty()) out[name] = value;
  }
  void bytes(std::string_view name, int64_t value) { out[name] = value; }
  void parts(std::string_view name, std::string_view, const std::vector<MemoryPlan::Part>& list) {
    auto& array = out[name] = nlohmann::ordered_json::array();
    for (const MemoryPlan::Part& p : list) array.push_back({{"name", p.name}, {"bytes", p.bytes}});
  }
  void layers(std::string_view name, const std::vector<MemoryPlan::Layer>& list) {
    auto& array = out[name] = nlohmann::ordered_json::array();
    for (const MemoryPlan::Layer& l : list)
      array.push_back({{"name", l.name},
                       {"device_bytes", l.device_bytes},
                       {"host_bytes", l.host_bytes},
                       {"disk_bytes", l.disk_bytes}});
  }
  void choices(std::string_view name, const std::vector<MemoryPlan::Choice>& list) {
    for (const MemoryPlan::Choice& c : list) out[name][c.name] = c.value;
  }
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
};

/// Everything that a plan says, a line a field.
template <class Out>
void show(const MemoryPlan& plan, Out& out) {
  out.text("preset", plan.preset);
  out.parts("parts", "", plan.parts);
  out.bytes("total", plan.total());
  out.parts("host_parts", "host: ", plan.host_parts);
  if (plan.disk_bytes() > 0) out.bytes("disk_bytes", plan.disk_bytes());
  out.layers("layers", plan.layers);
  if (plan.cap > 0) out.bytes("cap", plan.cap);
  if (plan.smallest_cap > 0) out.bytes("smallest_cap", plan.smallest_cap);
  out.choices("choices", plan.choices);
}

struct PlanCommand {
  ModelOptions model;
  Workload work;
  bool json = false;
  std::string svg;

  int run();
};

int PlanCommand::run() {
  if (const Status s = model.finish(); !s.ok()) return fail(s);
  work.pictures = !svg.empty();
  const auto plan = Reranker::plan(model.model, model.options, work);
  if (!plan) return fail(plan.error());
  for (const auto& [pass, picture] : plan->pictures) {
    std::filesystem::path file(svg);
    if (pass != "text")
      file.replace_filename(file.stem().string() + "-" + pass + file.extension().string());
    if (const Status s = write_text_file(file.string(), picture); !s.ok()) return fail(s);
  }
  if (json) {
    Json out;
    show(*plan, out);
    fmt::print("{}\n", out.out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    Table out;
    show(*plan, out);
  }
  return kServed;
}

}  // namespace

void add_plan(CLI::App& app, Run& run) {
  auto command = std::make_shared<PlanCommand>();
  command->model.add_to(app, kRunsModel | kTakesPairs | kVisionCache, kReadsTexts | kReadsMedia);
  app.add_option("--documents", command->work.documents, "Documents of a request")
      ->capture_default_str();
  app.add_option("--tokens", command->work.tokens_per_document, "Tokens of a pair, without images")
      ->capture_default_str();
  app.add_option("--images", command->work.images_per_document, "Images of a document")
      ->capture_default_str();
  app.add_option("--query-images", command->work.images_per_query, "Images of a query")
      ->capture_default_str();
  app.add_option("--patches", command->work.patches_per_image,
                 "Patches of an image; 4800 for 1280 x 960")
      ->capture_default_str();
  app.add_flag("--json", command->json, "Print JSON, all sizes in bytes");
  app.add_option(
      "--svg", command->svg,
      "Write a picture of a batch's activations, node by node; that of the vision tower, "
      "if there are images, gets -vision before the extension");
  app.callback([command, &run] { run = [command] { return command->run(); }; });
}

}  // namespace vlr::tools
