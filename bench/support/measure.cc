#include "bench/support/measure.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <thread>

#include "kernels/core/clock.h"

namespace vlr::bench {
namespace {

constexpr uint64_t kSeed = 1, kOtherSeed = 77;
constexpr size_t kFewest = 12;  // samples, before an interval says something

/// An implementation with a window of its launches.
struct Candidate {
  std::optional<size_t> open;  ///< of the subject; none: a rival's
  /// A window of so many seconds; 0 where it is not known what a launch takes.
  std::function<Result<std::unique_ptr<Window>>(double seconds, double launch)> make;
  std::unique_ptr<Window> window{};
};

/// Windows that take so differently long say other things: the median of short ones leaves out the
/// time that others stole, and each long one has some of it.
constexpr double kAlike = 2;

/// A GPU takes a while to go over to another process: a window should be long beside that.
double window_seconds(const Machine& machine, const Rivals& rivals) {
  return rivals.rival || !machine.gpu ? 5e-3 : 1e-3;
}

/// Runs windows in this order, again and again: samples of each place in the order. `company`, if it is
/// not null, runs before each of them.
class Sampler {
 public:
  Sampler(Timer& timer, const Window* company, const std::vector<const Window*>& windows)
      : timer_(timer), samples_(windows.size()), stride_(company ? 2 : 1) {
    for (const Window* w : windows) {
      if (company) order_.push_back(company);
      order_.push_back(w);
    }
    double seconds = 0;
    for (const Window* w : order_) seconds += w->duration(w->seconds);
    // Many at once, so that nothing waits between them, but no more than a tenth of a second.
    constexpr double kQueued = 0.1;
    constexpr size_t kMostWindows = 256;
    const auto most = static_cast<size_t>(std::max(1.0, kQueued / std::max(seconds, 1e-9)));
    at_once_ = std::clamp<size_t>(most, 1, std::max<size_t>(1, kMostWindows / order_.size()));
  }

  /// Runs for so many seconds, once at least.
  Status settle(double seconds) {
    const double start = seconds_now();
    do VLR_RETURN_IF_ERROR(take());
    while (seconds_now() - start < seconds);
    return {};
  }
  void forget() {
    for (auto& s : samples_) s.clear();
  }
  Status take() {
    std::vector<const Window*> windows;
    for (size_t i = 0; i < at_once_; ++i)
      windows.insert(windows.end(), order_.begin(), order_.end());
    VLR_ASSIGN_OR_RETURN(const std::vector<double> seconds, timer_.run(windows));
    for (size_t i = stride_ - 1; i < seconds.size(); i += stride_)
      samples_[i % order_.size() / stride_].push_back(seconds[i]);
    return {};
  }
  /// The mean of two places of the order, sample by sample: what drifts in one way is in both.
  std::vector<double> mean(size_t a, size_t b) const {
    std::vector<double> out;
    for (size_t i = 0; i < samples_[a].size(); ++i)
      out.push_back((samples_[a][i] + samples_[b][i]) / 2);
    return out;
  }
  /// The least that a launch took at these places.
  double least(size_t a, size_t b) const {
    return std::min(std::ranges::min(samples_[a]), std::ranges::min(samples_[b]));
  }
  size_t count() const { return samples_[0].size(); }

 private:
  Timer& timer_;
  std::vector<const Window*> order_;
  std::vector<std::vector<double>> samples_;
  size_t at_once_ = 1, stride_;
};

/// Samples until `enough` says so, or the time is over; up to four times as long where that gives
/// too few of them.
template <class Enough>
Status sample(Sampler& sampler, const MeasureOptions& options, Enough&& enough) {
  sampler.forget();
  const double start = seconds_now();
  for (size_t next = kFewest;;) {
    VLR_RETURN_IF_ERROR(sampler.take());
    const double spent = seconds_now() - start;
    const bool few = sampler.count() < kFewest;
    if (spent >= (few ? 4 : 1) * options.seconds) return {};
    if (sampler.count() < next) continue;
    if (enough()) return {};
    next = sampler.count() * 3 / 2;  // intervals take time, too
  }
}

/// By itself: A A' A' A, of which the sides are compared as a control.
Status measure_alone(Machine& machine, Timer& timer, const Window* company, const Candidate& c,
                     const MeasureOptions& options, Measured& row) {
  const Window* w = c.window.get();
  if (options.burst) {
    constexpr auto kIdle = std::chrono::milliseconds(50);
    constexpr double kBurst = 0.02;
    std::this_thread::sleep_for(kIdle);
    const double one = std::max(w->duration(w->seconds), 1e-9);
    const std::vector<const Window*> windows(
        std::clamp<size_t>(static_cast<size_t>(kBurst / one), 1, 20), w);
    VLR_ASSIGN_OR_RETURN(const std::vector<double> seconds, timer.run(windows));
    row.burst = median(seconds);
  }
  Sampler sampler(timer, company, {w, w, w, w});
  VLR_RETURN_IF_ERROR(sampler.settle(options.settle));
  Monitor monitor(machine.nvml());
  const auto all = [&] {
    std::vector<double> out;
    const std::vector<double> a = sampler.mean(0, 3), b = sampler.mean(1, 2);
    for (size_t i = 0; i < a.size(); ++i) out.insert(out.end(), {a[i], b[i]});
    return out;
  };
  VLR_RETURN_IF_ERROR(sample(sampler, options, [&] {
    // The energy counter needs half a second to be worth something.
    return !machine.is_gpu() && median_interval(all()).spread() < options.precision;
  }));
  row.readings = monitor.stop();
  if (company) row.readings.watts = 0;  // the company's, mostly
  row.seconds = median_interval(all());
  row.itself = ratio_interval(sampler.mean(0, 3), sampler.mean(1, 2));
  return {};
}

/// Every place and its mirror are at the same time on average: A B C A' A' C B A.
class Turns {
 public:
  Turns(Timer& timer, const Window* company, std::span<Candidate* const> candidates)
      : candidates_(candidates.begin(), candidates.end()),
        sampler_(timer, company, order(candidates)) {}

  Sampler& sampler() { return sampler_; }
  std::vector<double> samples(size_t i) const { return sampler_.mean(i, mirror(i)); }
  Interval ratio(size_t i) const { return ratio_interval(samples(0), samples(i)); }
  double launch(size_t i) const { return sampler_.least(i, mirror(i)); }

  /// The window of one takes about as long as the first one's, or cannot be any shorter: then a launch
  /// takes as much longer.
  bool alike(size_t i) const {
    const Window &a = *candidates_[0]->window, &b = *candidates_[i]->window;
    const double of_a = a.duration(launch(0)), of_b = b.duration(launch(i));
    return (of_a <= kAlike * of_b || a.launches == a.round) &&
           (of_b <= kAlike * of_a || b.launches == b.round);
  }
  /// Nothing to make again: all are alike, and those that may be shorter take the time of the longest,
  /// which is `most` at most.
  Result<bool> equalise(double seconds, double most) {
    double shortest = INFINITY, longest = 0, round = seconds;
    for (size_t i = 0; i < candidates_.size(); ++i) {
      const Window& w = *candidates_[i]->window;
      shortest = std::min(shortest, w.duration(launch(i)));
      longest = std::max(longest, w.duration(launch(i)));
      round = std::max(round, launch(i) * static_cast<double>(w.round));
    }
    if (longest <= kAlike * shortest) return true;
    for (size_t i = 0; i < candidates_.size(); ++i) {
      VLR_ASSIGN_OR_RETURN(candidates_[i]->window,
                           candidates_[i]->make(std::min(round, most), launch(i)));
    }
    return false;
  }

 private:
  size_t mirror(size_t i) const { return 2 * candidates_.size() - 1 - i; }
  static std::vector<const Window*> order(std::span<Candidate* const> candidates) {
    std::vector<const Window*> out;
    for (const Candidate* c : candidates) out.push_back(c->window.get());
    out.insert(out.end(), out.rbegin(), out.rend());
    return out;
  }
  const std::vector<Candidate*> candidates_;
  Sampler sampler_;
};

/// In turns with the first one, and that with itself: A' is a window of its own, so what may be wrong
/// with one is in the control.
Status compare(Machine& machine, Timer& timer, const Window* company,
               std::vector<Candidate>& candidates, const std::vector<Measured*>& rows,
               double seconds_of_window, const MeasureOptions& options, Measurement& out) {
  Candidate again = {candidates[0].open, candidates[0].make};
  VLR_ASSIGN_OR_RETURN(again.window, again.make(seconds_of_window, 0));
  std::vector<Candidate*> all;
  for (Candidate& c : candidates) all.push_back(&c);
  all.push_back(&again);
  auto turns = std::make_unique<Turns>(timer, company, all);
  VLR_RETURN_IF_ERROR(turns->sampler().settle(options.settle));
  // Company has its share of windows as they were.
  const double most = (company ? 1 : 4) * seconds_of_window;
  VLR_ASSIGN_OR_RETURN(const bool fine, turns->equalise(seconds_of_window, most));
  if (!fine) {
    turns = std::make_unique<Turns>(timer, company, all);
    VLR_RETURN_IF_ERROR(turns->sampler().settle(options.settle));
  }
  const size_t control = rows.size();
  Monitor monitor(machine.nvml());
  VLR_RETURN_IF_ERROR(sample(turns->sampler(), options, [&] {
    for (size_t i = 1; i <= control; ++i) {
      if (turns->ratio(i).spread() > options.precision) return false;
    }
    return true;
  }));
  out.readings = monitor.stop();
  out.control = turns->ratio(control);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!options.alone) rows[i]->seconds = median_interval(turns->samples(i));
    if (i == 0) continue;
    rows[i]->ratio = turns->ratio(i);
    if (turns->alike(i) && turns->alike(control))
      rows[i]->verdict = judge(*rows[i]->ratio, *out.control, options.margin);
  }
  return {};
}

/// Nothing is faster than the units of a chip at their highest clock, or than its memory where the
/// operands are cold.
Status check_speed(Machine& machine, const Subject& subject, const Unit unit, double seconds) {
  const Cost cost = subject.cost();
  const auto too_fast = [&](double share, const std::string& of) -> Status {
    return {Code::kInternal,
            fmt::format("took {:.3g} us, {:.3g} times as fast as {}: it does not do the work",
                        seconds * 1e6, share, of)};
  };
  if (machine.gpu) {
    // What is in caches from the round before, and writes that are not yet in memory.
    constexpr double kCaches = 1.25;
    const double flops = machine.gpu->limit_flops(unit, machine.gpu->nvml().max_sm_mhz());
    if (flops > 0 && cost.flops / seconds > flops)
      return too_fast(cost.flops / seconds / flops, "all units of the chip");
    const double bytes = machine.gpu->limit_bytes() * kCaches;
    const bool cold = subject.is_cold();
    if (cold && bytes > 0 && cost.bytes / seconds > bytes)
      return too_fast(cost.bytes / seconds / bytes * kCaches, "the bus of its memory");
    return {};
  }
  // The roofs of the host are measured, by code that another may beat.
  constexpr double kBetter = 3;
  VLR_ASSIGN_OR_RETURN(const Roof* flops, machine.roofs.flops(unit));
  VLR_ASSIGN_OR_RETURN(const Roof* bytes, machine.roofs.bytes(subject.bytes(), true));
  const auto share = [&] {
    return std::max(cost.flops / flops->best(), cost.bytes / bytes->best()) / seconds;
  };
  if (share() <= kBetter) return {};
  // Or somebody else had the machine while they were measured.
  VLR_RETURN_IF_ERROR(machine.roofs.measure_again());
  return share() > kBetter ? too_fast(share(), "the measured roof") : Status();
}

/// Of a kernel of this program; nothing where cuobjdump is not there, or the kernel is a library's.
std::optional<SassCounts> sass_of(Machine& machine, const std::string& name) {
  static std::map<std::string, std::optional<SassCounts>> known;
  const auto it = known.find(name);
  if (it != known.end()) return it->second;
  std::optional<SassCounts>& counts = known[name];
  std::string architecture;
  for (const auto& [key, value] : machine.description()) {
    if (key == "gpu_architecture") architecture = value;
  }
  // Code of one generation alone is behind the letter; older code serves newer cards.
  for (const std::string& a : {architecture + "a", architecture, std::string("sm_80")}) {
    const auto counted = count_sass("/proc/self/exe", name, a);
    if (counted.ok()) {
      counts = *counted;
      break;
    }
  }
  return counts;
}

}  // namespace

Measurement measure(Machine& machine, Subject& subject, Unit unit,
                    std::span<const std::string> implementations, const MeasureOptions& options,
                    const Rivals& rivals) {
  Measurement out;
  TurnsTimer timer(machine.timer());
  const double seconds_of_window = window_seconds(machine, rivals);
  for (const std::string& name : implementations) out.rows.emplace_back().implementation = name;
  for (const std::string& name : rivals.implementations)
    out.rows.emplace_back().implementation = name;
  std::vector<Candidate> candidates;
  std::vector<Measured*> rows;  // of candidates
  for (Measured& row : out.rows) {
    const auto fails = [&](const Status& s) {
      if (!s.ok()) row.error = s.message();
      return !s.ok();
    };
    const auto add = [&](Candidate c) {
      auto window = c.make(seconds_of_window, 0);
      if (fails(window.ok() ? Status() : window.error())) return;
      c.window = std::move(window).value();
      candidates.push_back(std::move(c));
      rows.push_back(&row);
    };
    if (&row >= out.rows.data() + implementations.size()) {
      if (options.profile || fails(rivals.rival->verify(row.implementation))) continue;
      add({{}, [rival = rivals.rival, name = row.implementation](double seconds, double) {
             return rival->make_window(name, seconds);
           }});
      continue;
    }
    const Result<size_t> open = subject.open(row.implementation);
    if (fails(open.ok() ? Status() : open.error())) continue;
    if (fails(subject.verify(*open, kSeed))) continue;
    if (machine.gpu) {
      auto kernels = machine.gpu->kernels_of([&] { return subject.launch(*open, 0); });
      if (kernels.ok()) row.kernels = std::move(kernels).value();
      for (KernelCost& k : row.kernels) {
        if (options.sass) k.sass = sass_of(machine, k.name);
      }
    }
    subject.fill();
    if (fails(machine.finish())) continue;
    if (options.profile) {
      const auto launch = [&] { return subject.launch(*open, 0); };
      fails(machine.gpu ? machine.gpu->profile(launch) : launch());
      continue;
    }
    add({*open, [&subject, &timer, at = *open](double seconds, double launch) {
           return timer.make_window([&subject, at](int64_t set) { return subject.launch(at, set); },
                                    subject.num_sets(), seconds, launch);
         }});
  }
  const auto fail_all = [&](const Status& s) {
    for (Measured* row : rows) {
      if (row->error.empty()) row->error = s.message();
    }
  };
  std::unique_ptr<Window> company;
  if (options.company > 0 && machine.gpu) {
    const double share = std::min(options.company, 0.99);
    const double seconds = seconds_of_window * share / (1 - share);
    const auto launch = machine.gpu->make_company();
    auto window = launch.ok() ? timer.make_window(*launch, 1, seconds) : launch.error();
    window.ok() ? void(company = std::move(window).value()) : fail_all(window.error());
  }
  /// One more window, after some places of the outputs were poisoned.
  const auto check_left = [&](const Candidate& c) -> Status {
    const Window* const once[] = {c.window.get()};
    subject.poison_places();
    VLR_RETURN_IF_ERROR(timer.run(once).error());
    return subject.check_left(*c.open);
  };
  const auto alone = [&](const MeasureOptions& how) {
    for (size_t i = 0; i < candidates.size(); ++i) {
      subject.poison_outputs();
      Status s = measure_alone(machine, timer, company.get(), candidates[i], how, *rows[i]);
      if (s.ok() && candidates[i].open) s = check_left(candidates[i]);
      if (!s.ok()) rows[i]->error = s.message();
    }
  };
  if (options.alone) alone(options);
  for (size_t i = candidates.size(); i-- > 0;) {
    if (rows[i]->error.empty()) continue;
    candidates.erase(candidates.begin() + static_cast<ptrdiff_t>(i));
    rows.erase(rows.begin() + static_cast<ptrdiff_t>(i));
  }
  /// Two more windows of each, on outputs that hold something else.
  const auto check_all_left = [&] {
    for (size_t i = 0; i < candidates.size(); ++i) {
      if (!rows[i]->error.empty() || !candidates[i].open) continue;
      subject.poison_outputs();
      const Window* const once[] = {candidates[i].window.get()};
      Status s = timer.run(once).error();
      if (s.ok()) s = check_left(candidates[i]);
      if (!s.ok()) rows[i]->error = s.message();
    }
  };
  const bool first_runs = !rows.empty() && rows[0] == &out.rows[0];
  if (first_runs && candidates.size() > 1) {
    if (const Status s = compare(machine, timer, company.get(), candidates, rows, seconds_of_window,
                                 options, out);
        !s.ok())
      fail_all(s);
    check_all_left();
  } else if (!options.alone && !candidates.empty()) {
    MeasureOptions how = options;
    how.burst = false;
    alone(how);
  }
  if (const Status s = machine.finish(); !s.ok()) fail_all(s);
  for (size_t i = 0; i < candidates.size(); ++i) rows[i]->launches = candidates[i].window->launches;
  // What was timed still does the work, at the same addresses, on numbers that it has not seen.
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!rows[i]->error.empty()) continue;
    Status s = candidates[i].open ? subject.verify(*candidates[i].open, kOtherSeed)
                                  : rivals.rival->verify(rows[i]->implementation);
    if (s.ok()) s = check_speed(machine, subject, unit, rows[i]->seconds.value);
    if (!s.ok()) rows[i]->error = s.with_context("after it was timed").message();
  }
  return out;
}

}  // namespace vlr::bench
