/// Implementations that live in another process, a library's that ours are held against: timed in the
/// same run, window by window in turns with ours.
#ifndef VLR_BENCH_SUPPORT_RIVAL_H_
#define VLR_BENCH_SUPPORT_RIVAL_H_

#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "bench/support/shape.h"
#include "bench/support/timer.h"

namespace vlr::bench {

/// The process reads a line of JSON from its standard input and answers it with one on its standard
/// output; docs/kernel-lab.md has them. What it says beside that belongs on its standard error.
class Rival {
 public:
  using Json = nlohmann::ordered_json;

  /// Runs the command by sh and waits for what it says of itself. kInvalidArgument where that is none.
  /// It has so many seconds for an answer, in which libraries are loaded and kernels are compiled; one
  /// that takes longer is ended.
  static Result<std::unique_ptr<Rival>> start(const std::string& command, double patience = 120);
  /// The process is told by the end of its input, and ended if it does not listen, with all that it
  /// has started.
  ~Rival();
  Rival(const Rival&) = delete;
  Rival& operator=(const Rival&) = delete;

  /// What its first line said: versions.
  const Json& description() const { return description_; }
  /// Has operands made. Names of the implementations that it has for the shape, which may be none;
  /// each has one of its own that can be shown.
  Result<std::vector<std::string>> open(const std::string& op, const Shape& shape, bool warm);
  /// It holds its result against a computation of its own that is plain.
  Status verify(const std::string& implementation);
  /// Of what was opened last. The rival has to outlive it.
  Result<std::unique_ptr<Window>> make_window(const std::string& implementation, double seconds);

 private:
  class RivalWindow;
  friend class TurnsTimer;
  Rival(std::string command, int socket, int process, double patience)
      : command_(std::move(command)), socket_(socket), process_(process), patience_(patience) {}

  /// Sends a request and gives the answer; an "error" in it is kInternal.
  Result<Json> ask(const Json& request);
  Result<Json> answer();

  const std::string command_;
  const int socket_, process_;
  const double patience_;
  Status ended_;      ///< why nothing is asked any more
  std::string read_;  ///< beyond the last line
  Json description_;
};

/// Takes windows of a timer and of rivals.
class TurnsTimer : public Timer {
 public:
  explicit TurnsTimer(Timer& own) : own_(own) {}
  Result<std::unique_ptr<Window>> record(const Launch& launch, int64_t num_sets,
                                         int64_t launches) override {
    return own_.record(launch, num_sets, launches);
  }
  /// Those of the same process one behind the other without a gap.
  Result<std::vector<double>> run(std::span<const Window* const> windows) override;

 private:
  Timer& own_;
};

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_RIVAL_H_
