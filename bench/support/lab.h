/// The lab's commands: list, check, time, ab. `vlr lab` has them for all ops, each <op>_bench for its
/// own.
#ifndef VLR_BENCH_SUPPORT_LAB_H_
#define VLR_BENCH_SUPPORT_LAB_H_

#include <CLI/App.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/support/measure.h"
#include "bench/support/op_lab.h"

namespace vlr::bench {

/// How the commands end.
enum ExitCode {
  kFine = 0,   ///< done; of ab: FASTER somewhere, SLOWER nowhere
  kWrong = 1,  ///< an implementation is wrong, or something failed
  kUsage = 2,
  kSame = 3,        ///< of ab: SAME everywhere
  kSlower = 4,      ///< of ab: SLOWER somewhere
  kUndecided = 5,   ///< of ab: else
  kUnfinished = 6,  ///< of verdict: something failed that is not the candidate's fault
};
/// Seconds and shares: no NaN, nothing below 0.
CLI::Validator finite_number();
/// Of the verdicts of an op's times, and of workloads: FASTER by itself and SLOWER in a model is kUndecided.
ExitCode exit_code(std::span<const Verdict> verdicts, std::span<const Verdict> in_model = {});

/// What a command works on.
struct LabOptions {
  std::vector<const OpLab*> ops;
  std::string device;
  int num_threads = 0;
  std::vector<std::string> implementations;  ///< none: all that take a shape
  std::vector<std::string> shapes;           ///< "rows=8,dim=64"; none: the models'
  std::string dtype;                         ///< none: bf16 on a GPU, f32 on the host
  std::string label;                         ///< of the models' shapes those that have it
  std::string shapes_file;                   ///< of `vlr profile --shapes`
  bool warm = false, cold = false;           ///< neither: warm on the host, cold on a GPU
  std::vector<std::string> warm_operands;
  std::string data = "normal";
  std::function<Result<Data>(const std::string&)>
      read_data;                               ///< of other data; null: there is none
  std::vector<std::string> plugins, cu_files;  ///< of --load and --cu
  bool two = false;                            ///< of ab: a baseline and a candidate, or one twice
  double budget = 0;  ///< seconds after which no further shape is begun; 0: none
  int64_t soak = 0;   ///< launches of check that must have the same bits
  std::string rival;  ///< of time and ab: the command of a Rival
  std::string commit;
  MeasureOptions measure;
};

/// Adds what --load and --cu name.
Status load_all(const LabOptions& options, const std::vector<OpLab>& ops);

/// Where the options have operands.
Result<Placement> placement_of(const LabOptions& options, const Machine& machine);

/// kInvalidArgument, with those that there are, unless one of the ops has an implementation of this
/// name on the device.
Status expect_implementation(std::span<const OpLab* const> ops, const std::string& name,
                             Device device);

/// The shapes that the options ask for of one op.
Result<std::vector<Shape>> shapes_of(const OpLab& op, const LabOptions& options, Device device);

/// kInvalidArgument unless a result can be written there; told before anything is measured. What is
/// there stays. No path: ok.
Status can_write(const std::string& path);
/// In place of what is there, and all of it: beside it first. No path: ok.
Status write_whole(const std::string& path, const std::string& text);

/// Results of time and ab: {"context", "roofs", "rows"}; docs/kernel-lab.md describes it.
using Json = nlohmann::ordered_json;
/// Whatever an implementation said: what is no UTF-8 becomes U+FFFD. `indent` -1: a line.
std::string text_of(const Json& json, int indent = 1);
Json context_json(Machine& machine, const LabOptions& options);
Json roofs_json(const Roofs& roofs);
Json row_json(Machine& machine, const OpLab& op, const Subject& subject, const Measured& row);

/// Why a shape is not judged; empty: it is.
std::string why_skipped(const Subject& subject);
Json skipped_json(const OpLab& op, const Subject& subject);

/// An implementation at one shape, held against the reference and against itself.
struct Checked {
  std::string error;  ///< why the rest is missing, or what a soak found
  Errors errors;
  Status bits;  ///< Subject::same_bits()

  const char* bits_word() const {
    return bits.ok() ? "same" : bits.code() == Code::kUnimplemented ? "not compared" : "different";
  }
  bool wrong() const {
    return !error.empty() || errors.wrong > 0 ||
           (!bits.ok() && bits.code() != Code::kUnimplemented);
  }
};
/// On three sets of operands at the same addresses; then so many launches of `soak`.
Checked check(Subject& subject, const std::string& implementation, int64_t soak);
Json checked_json(const Checked& c, const Shape& shape);

/// Measures every shape of every op of the options, beside the rival if there is one; `done` is called
/// with each.
using Done = std::function<void(const OpLab&, const Subject&, const Measurement&)>;
Status measure_all(Machine& machine, const LabOptions& options, Rival* rival, Json& rows,
                   const Done& done);

/// Adds the commands; each sets `run` to what main() calls. The ops have to outlive it.
void add_lab_commands(CLI::App& app, const std::vector<OpLab>& ops, std::function<int()>& run,
                      const LabOptions& defaults = {});

/// main() of a program of some ops.
int lab_main(int argc, char** argv, const std::vector<OpLab>& ops);

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_LAB_H_
