/// The vlr command. Exit codes: 0 served, 1 the request or the model was unusable or the output could
/// not be written, 2 usage.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <sstream>
#include <string>
#include <system_error>

#include "tools/common.h"

namespace {

using namespace vlr::tools;

/// Standard streams that are closed stay so for whoever uses them, but no file gets their numbers.
void hold_closed_streams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    // What is printed waits for its reader: a program before us may have left the stream otherwise.
    const int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && fd != STDIN_FILENO && (flags & O_NONBLOCK) != 0)
      fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
    if (flags >= 0 || errno != EBADF) continue;
    // The lowest number that is free is this one; in the other direction, so that use of it fails.
    (void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

int output_failed(std::string_view reason) {
  return fail({vlr::Code::kInvalidArgument, fmt::format("standard output: {}", reason)});
}

/// Nothing that was printed is lost without a word.
int flush_output(int code) {
  errno = 0;
  bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  // Some file systems report on closing what they could not keep.
  if (const int copy = dup(STDOUT_FILENO); copy >= 0) written = close(copy) == 0 && written;
  if (written || code != kServed) return code;
  // Where an earlier flush failed nothing says why any more: a write of nothing may.
  if (errno == 0) (void)!write(STDOUT_FILENO, "", 0);
  return output_failed(errno != 0 ? std::generic_category().message(errno) : "cannot be written");
}

int run_command(int argc, char** argv) {
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
  add_lab(*app.add_subcommand("lab", "Check and time single kernels, and judge one in a model"),
          run);
  add_cache(*app.add_subcommand("cache", "Show, fill and clear a vision cache's folder"), run);
  add_inspect(*app.add_subcommand("inspect", "Show a checkpoint, its tensors, its graphs"), run);
  add_quantize(
      *app.add_subcommand("quantize", "Write a checkpoint in nf4, fp4, int8, fp8 or mxfp4"), run);
  add_checkpoint(*app.add_subcommand("checkpoint", "Make synthetic checkpoints"), run);
  add_options(*app.add_subcommand("options", "Print docs/options.md"), run);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::ostringstream out, err;
    const int code = app.exit(e, out, err);
    const std::string help = out.str();
    std::fwrite(help.data(), 1, help.size(), stdout);  // flush_output() tells what became of it
    std::istringstream lines(err.str());
    for (std::string line; std::getline(lines, line);) tell("{}\n", vlr::printable(line));
    return code == 0 ? 0 : 2;
  }
  try {
    return run();
  } catch (const std::exception& e) {  // of a library, or no memory
    const auto* of_print = dynamic_cast<const std::system_error*>(&e);
    if (of_print && std::ferror(stdout)) return output_failed(of_print->code().message());
    tell_text("vlr: ");
    const bool memory = dynamic_cast<const std::bad_alloc*>(&e) != nullptr;
    tell_text(memory ? "host memory" : vlr::printable(e.what()));
    tell_text("\n");
    return kUnusable;
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    hold_closed_streams();
    std::signal(SIGXFSZ, SIG_IGN);  // a limit of a file's size is an error of its write
    return flush_output(run_command(argc, argv));
  } catch (...) {  // no memory for a message
    return kUnusable;
  }
}
