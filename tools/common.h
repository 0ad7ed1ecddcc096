/// What the subcommands share: options of a model, files, progress.
#ifndef VLR_TOOLS_COMMON_H_
#define VLR_TOOLS_COMMON_H_

#include <fmt/format.h>

#include <CLI/App.hpp>  // the rest of CLI11 is in vlr.cc: its formatter takes 2 s to compile
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "engine/api/options.h"
#include "engine/api/request_json.h"
#include "kernels/core/text.h"
#include "multimodal/file_kind.h"
#include "vlr/reranker.h"

namespace vlr::tools {

constexpr int kServed = 0,
              kUnusable = 1;  // CLI11 itself exits with other codes on usage errors: see main()

/// Decimal digits within 64 bits, `least` or more; CLI11 itself takes 010 for 8 and cuts what is
/// beyond 64 bits.
CLI::Validator whole_number(int64_t least = std::numeric_limits<int64_t>::min());

/// -m and everything that changes how it scores.
struct ModelOptions {
  std::string model;
  Options options;
  std::vector<std::string> impls;  // "op=name"

  /// -m, and those that act on something in `uses` (bits of OptionUse). Those of `unused` are taken
  /// too, so that one set of options serves several commands, and help does not show them.
  void add_to(CLI::App& app, unsigned uses, unsigned unused = 0);
  /// The same without -m.
  void add_options_to(CLI::App& app, unsigned uses, unsigned unused = 0);
  /// Reads `impls` into the options.
  Status finish();
  Result<Reranker> open();
};
/// What a command acts on that scores requests.
constexpr unsigned kScores = kRunsModel | kTakesPairs | kReadsTexts | kReadsMedia | kVisionCache;

/// An option that takes one value each time it is given; CLI11 by itself would take positionals for
/// more.
CLI::Option* add_repeatable(CLI::App& app, const std::string& name,
                            std::vector<std::string>& values, const std::string& help);

/// What a file's bytes are, by file_kind(); text with a picture's or a video's suffix is a damaged
/// one. A URL is what its suffix says. kInvalidArgument: none of them, and what it is.
Result<FileUse> kind_of(const std::string& path, const std::string& media_root = {});
/// As Media::path has it: a path from the working directory, whatever the media root; or a URI.
std::string media_path(const std::string& argument);

/// "vlr: <message>" on stderr, printable; returns kUnusable.
int fail(const Status& status);
/// Text on stderr. Where that is closed or full, nobody could be told.
void tell_text(std::string_view text);
template <class... Args>
void tell(fmt::format_string<Args...> format, Args&&... args) {
  tell_text(fmt::format(format, std::forward<Args>(args)...));
}

/// A file of this text and the end of a line; what is no regular file is written through.
Status write_line(const std::string& path, std::string_view text);

/// Shows on stderr how far opening a model is, while that is a terminal: a bar, gone when the model
/// is open. Null otherwise.
std::function<void(const LoadProgress&)> load_progress_bar();
void clear_progress_line();
/// Reranker::open() with such a bar.
Result<Reranker> open_with_bar(const std::string& folder, Options options);

/// Counts on stderr while it is a terminal: "\r123 / 700 documents"; nothing otherwise. A total of
/// 0 is not known: "\r123 documents".
class Progress {
 public:
  Progress(int64_t total, std::string_view unit);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void step();
  bool any() const { return done_ > 0; }
  void clear();  ///< takes the line away; later steps bring it back

 private:
  int64_t total_, done_ = 0, shown_ = -1;
  std::string unit_;
  bool on_;
};

// One a subcommand: adds its options, and sets `run` to what main() calls.
using Run = std::function<int()>;
void add_bench(CLI::App& app, Run& run);
void add_cache(CLI::App& app, Run& run);
void add_checkpoint(CLI::App& app, Run& run);
void add_eval(CLI::App& app, Run& run);
void add_inspect(CLI::App& app, Run& run);
void add_lab(CLI::App& app, Run& run);
void add_options(CLI::App& app, Run& run);
void add_plan(CLI::App& app, Run& run);
void add_profile(CLI::App& app, Run& run);
void add_quantize(CLI::App& app, Run& run);
void add_rank(CLI::App& app, Run& run);
void add_score(CLI::App& app, Run& run);

}  // namespace vlr::tools

#endif  // VLR_TOOLS_COMMON_H_
