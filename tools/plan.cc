/// vlr plan: bytes by purpose, from config.json alone.
#include <fmt/format.h>

#include "tools/common.h"

namespace vlr::tools {

void add_plan(CLI::App& app, Run& run) {
  struct Command {
    ModelOptions model;
    Workload work;
  };
  auto command = std::make_shared<Command>();
  command->model.add_to(app);
  app.add_option("--documents", command->work.documents, "Documents of a request")
      ->capture_default_str();
  app.add_option("--tokens", command->work.tokens_per_document, "Tokens of a pair, without images")
      ->capture_default_str();
  app.add_option("--images", command->work.images_per_document, "Images of a document")
      ->capture_default_str();
  app.add_option("--patches", command->work.patches_per_image,
                 "Patches of an image; 4800 for 1280 x 960")
      ->capture_default_str();
  app.callback([command, &run] {
    run = [command] {
      if (const Status s = command->model.finish(); !s.ok()) return fail(s);
      const auto plan = Reranker::plan(command->model.model, command->model.options, command->work);
      if (!plan) return fail(plan.error());
      const auto line = [](std::string_view name, int64_t bytes) {
        fmt::print("{:<40} {:>12.1f} MB\n", name, static_cast<double>(bytes) / 1e6);
      };
      for (const MemoryPlan::Part& part : plan->parts) line(part.name, part.bytes);
      line("total", plan->total());
      for (const MemoryPlan::Part& part : plan->host_parts) line("host: " + part.name, part.bytes);
      if (plan->smallest_cap > 0) line("smallest cap", plan->smallest_cap);
      for (const MemoryPlan::Choice& c : plan->choices) fmt::print("{:<40} {}\n", c.name, c.value);
      return kServed;
    };
  });
}

}  // namespace vlr::tools
