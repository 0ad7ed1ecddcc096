/// vlr checkpoint make: checkpoints whose weights are a function of their names.
#include <fmt/format.h>
#include <unistd.h>

#include "engine/weights/make_checkpoint.h"
#include "kernels/core/format_bytes.h"
#include "model/synthetic.h"
#include "tools/common.h"

namespace vlr::tools {

void add_checkpoint(CLI::App& app, Run& run) {
  struct Command {
    std::string preset, out, tokenizer;
    bool force = false;
  };
  auto command = std::make_shared<Command>();
  CLI::App* make = app.add_subcommand("make", "Write a synthetic checkpoint");
  app.require_subcommand(1);
  make->add_option("preset", command->preset,
                   "a | b: small, for tests; 2b | 8b: the published sizes")
      ->required();
  make->add_option("--out", command->out, "Folder to write")->required();
  make->add_option("--tokenizer", command->tokenizer, "A tokenizer.json to copy into it");
  make->add_flag("--force", command->force, "Replace what else is in the folder to write");
  make->callback([command, &run] {
    run = [command] {
      SyntheticOptions options;
      options.tokenizer_json = command->tokenizer;
      options.force = command->force;
      int64_t shown = -1;
      const bool terminal = isatty(STDERR_FILENO) != 0;
      options.progress = [&](int64_t done, int64_t total) {
        const int64_t percent = total > 0 ? 100 * done / total : 100;
        if (!terminal || percent == shown) return;
        shown = percent;
        tell("\r{:>11} / {}", format_bytes(done), format_bytes(total));
      };
      const Status status = make_checkpoint(command->preset, command->out, options);
      if (shown >= 0) tell("\n");
      return status.ok() ? kServed : fail(status);
    };
  });
}

}  // namespace vlr::tools
