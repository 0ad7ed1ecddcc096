/// vlr plan: bytes by purpose, before a model is loaded.
#include <fmt/format.h>

#include <filesystem>

#include "kernels/core/format_bytes.h"
#include "model/json.h"
#include "tools/common.h"
#include "vlr/json.h"

namespace vlr::tools {
namespace {

void print_row(std::string_view name, std::string_view value) {
  fmt::print("{:<40} {:>12}\n", name, value);
}
void print_bytes(std::string_view name, int64_t bytes) { print_row(name, format_bytes(bytes)); }

/// A plan as lines for people; its layers are too many to read.
void print_plan(const MemoryPlan& plan) {
  if (!plan.preset.empty()) fmt::print("{}\n", plan.preset);
  for (const MemoryPlan::Part& p : plan.parts) print_bytes(p.name, p.bytes);
  print_bytes("total", plan.total());
  for (const MemoryPlan::Part& p : plan.host_parts) print_bytes("host: " + p.name, p.bytes);
  if (plan.disk_bytes() > 0) print_bytes("disk_bytes", plan.disk_bytes());
  if (plan.cap > 0) print_bytes("cap", plan.cap);
  if (plan.smallest_cap > 0) print_row("smallest_cap", format_bytes_up(plan.smallest_cap));
  for (const MemoryPlan::Choice& c : plan.choices) fmt::print("{:<40} {}\n", c.name, c.value);
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
  auto plan = Reranker::plan(model.model, model.options, work);
  if (!plan) return fail(plan.error());
  for (const auto& [pass, picture] : plan->pictures) {
    std::filesystem::path file(svg);
    if (pass != "text")
      file.replace_filename(file.stem().string() + "-" + pass + file.extension().string());
    if (const Status s = write_text_file(file.string(), picture); !s.ok()) return fail(s);
  }
  if (json) {
    plan->pictures.clear();  // they are files
    fmt::print("{}\n", memory_plan_json(*plan, {.indent = 2}));
  } else {
    print_plan(*plan);
  }
  return kServed;
}

}  // namespace

void add_plan(CLI::App& app, Run& run) {
  auto command = std::make_shared<PlanCommand>();
  command->model.add_to(app, kRunsModel | kTakesPairs | kVisionCache, kReadsTexts | kReadsMedia);
  app.add_option("--documents", command->work.documents, "Documents of a request")
      ->transform(whole_number())
      ->capture_default_str();
  app.add_option("--tokens", command->work.tokens_per_document, "Tokens of a pair, without images")
      ->transform(whole_number())
      ->capture_default_str();
  app.add_option("--images", command->work.images_per_document, "Images of a document")
      ->transform(whole_number())
      ->capture_default_str();
  app.add_option("--query-images", command->work.images_per_query, "Images of a query")
      ->transform(whole_number())
      ->capture_default_str();
  app.add_option("--patches", command->work.patches_per_image,
                 "Patches of an image; 4800 for 1280 x 960")
      ->transform(whole_number())
      ->capture_default_str();
  app.add_flag("--json", command->json, "Print JSON, all sizes in bytes");
  app.add_option(
      "--svg", command->svg,
      "Write a picture of a batch's activations, node by node; that of the vision tower, "
      "if there are images, gets -vision before the extension");
  app.callback([command, &run] { run = [command] { return command->run(); }; });
}

}  // namespace vlr::tools
