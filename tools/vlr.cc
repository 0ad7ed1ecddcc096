/// The vlr command. Exit codes: 0 served, 1 the request or the model was unusable, 2 usage.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <exception>

#include "tools/common.h"

int main(int argc, char** argv) {
  using namespace vlr::tools;
  CLI::App app("Scores documents of text, images and video against a query with Qwen3-VL-Reranker",
               "vlr");
  app.set_version_flag("--version", VLR_VERSION);
  app.require_subcommand(1);
  Run run;
  add_rank(*app.add_subcommand("rank", "Rank documents and print a table"), run);
  add_score(*app.add_subcommand("score", "Score requests: JSON in, JSON out"), run);
  add_eval(*app.add_subcommand("eval", "Evaluate on requests with known answers"), run);
  add_plan(*app.add_subcommand("plan", "Memory that a model will take, before it is loaded"), run);
  add_bench(*app.add_subcommand("bench", "Time whole workloads and show where the time goes"), run);
  add_profile(*app.add_subcommand("profile", "Time every node of one request's runs"), run);
  add_cache(*app.add_subcommand("cache", "Show, fill and clear a vision cache's folder"), run);
  add_inspect(*app.add_subcommand("inspect", "Show a checkpoint, its tensors, its graphs"), run);
  add_quantize(*app.add_subcommand("quantize", "Write a checkpoint in nf4, int8, fp8 or mxfp4"),
               run);
  add_checkpoint(*app.add_subcommand("checkpoint", "Make synthetic checkpoints"), run);
  add_options(*app.add_subcommand("options", "Print docs/options.md"), run);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    return run();
  } catch (const std::exception& e) {  // of a library, or no memory
    return fail({vlr::Code::kInternal, e.what()});
  }
}
