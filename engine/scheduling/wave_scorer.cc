#include "engine/scheduling/wave_scorer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "engine/scheduling/packer.h"

namespace vlr {

void WaveScorer::score(const std::shared_ptr<Wave>& wave, const ScoringCall& call) {
  call_ = &call;
  for (Pair& pair : wave->pairs) {
    if (!pair.result.scored()) report(pair);
  }
  for (std::vector<Pair*>& group : group_pairs(*wave)) {
    if (const Status s = run_group(wave, group); !s.ok()) {
      // What has its result by now keeps it.
      for (Pair* pair : group) {
        if (!pair->done) report_failed(*pair, DocumentStatus::kError, s.message());
      }
    }
  }
}

Status WaveScorer::finish(const ScoringCall& call) {
  call_ = &call;
  finish_batches();
  VLR_RETURN_IF_ERROR(device_.synchronize());
  for (const Timing& t : timings_) {
    VLR_ASSIGN_OR_RETURN(const double vision, device_.seconds_between(t.start, t.seen));
    VLR_ASSIGN_OR_RETURN(const double text, device_.seconds_between(t.seen, t.end));
    call_->usage.seconds.vision += vision;
    call_->usage.seconds.text += text;
  }
  timings_.clear();
  return {};
}

void WaveScorer::abandon() {
  if (!in_flight_.empty()) (void)device_.synchronize();
  in_flight_.clear();
  timings_.clear();
  features_.abandon();
  prefix_cache_.unpin_all();
}

void WaveScorer::report(Pair& pair) {
  pair.done = true;
  call_->on_done(pair);
}

/// Pairs that run together: their pictures' features have to be in memory at once.
std::vector<std::vector<Pair*>> WaveScorer::group_pairs(Wave& wave) {
  std::vector<std::vector<Pair*>> groups;
  std::set<size_t> media;
  int64_t rows = 0;
  for (Pair& pair : wave.pairs) {
    if (!pair.result.scored()) continue;
    int64_t own = 0, added = 0;
    for (size_t m : std::set<size_t>(pair.media.begin(), pair.media.end())) {
      own += wave.media[m].tokens();
      if (!media.contains(m)) added += wave.media[m].tokens();
    }
    int64_t frame = 0;
    for (size_t m : pair.media) {
      const Patches* p = wave.media[m].features ? nullptr : &*wave.media[m].patches;
      if (p) frame = std::max(frame, p->grid_h * p->grid_w);
    }
    if (frame > limits_.frame_patches) {
      report_failed(pair, DocumentStatus::kTooLong,
                    fmt::format("a picture of {} patches, the memory cap allows {}", frame,
                                limits_.frame_patches));
      continue;
    }
    if (own > limits_.visual_rows) {
      report_failed(pair, DocumentStatus::kTooLong,
                    fmt::format("{} visual tokens, the memory cap allows {} at once", own,
                                limits_.visual_rows));
      continue;
    }
    if (groups.empty() || rows + added > limits_.visual_rows) {
      groups.emplace_back();
      media.clear();
      rows = 0;
      added = own;
    }
    groups.back().push_back(&pair);
    media.insert(pair.media.begin(), pair.media.end());
    rows += added;
  }
  return groups;
}

Status WaveScorer::run_group(std::shared_ptr<Wave> wave, std::span<Pair*> group) {
  VLR_ASSIGN_OR_RETURN(OpenDevice::Mark start, device_.mark(true));
  // Prefixes have their rows before they are computed: whatever leaves in between, an exception of
  // an observer's among it, must not leave rows that nobody wrote.
  struct Forget {
    PrefixCache& cache;
    bool computed = false;
    ~Forget() {
      if (!computed) cache.reset(cache.capacity());
    }
  } prefixes{prefix_cache_};
  VLR_ASSIGN_OR_RETURN(const auto new_prefixes, plan_prefixes(group));
  VLR_RETURN_IF_ERROR(run_vision(*wave, group, new_prefixes));
  VLR_ASSIGN_OR_RETURN(OpenDevice::Mark seen, device_.mark(true));
  VLR_RETURN_IF_ERROR(run_prefixes(new_prefixes));
  prefixes.computed = true;
  std::vector<Pair*> ready;
  std::vector<int64_t> lengths;
  for (Pair* pair : group) {
    const int64_t length = std::ssize(text_input(*pair).ids);
    if (length > limits_.max_sequence) {
      report_failed(*pair, DocumentStatus::kTooLong,
                    fmt::format("{} tokens beside a shared prefix, the memory cap allows {}",
                                length, limits_.max_sequence));
      continue;
    }
    ready.push_back(pair);
    lengths.push_back(length);
  }
  for (const std::vector<size_t>& members :
       pack_batches(lengths, limits_.tokens, limits_.sequences)) {
    std::vector<Pair*> batch;
    for (size_t i : members) batch.push_back(ready[i]);
    if (cancelled_) {
      for (Pair* pair : batch) {
        report_failed(*pair, DocumentStatus::kCancelled, "cancelled before it was reached");
      }
      continue;
    }
    if (const Status s = start_batch(wave, batch); !s.ok()) {
      for (Pair* pair : batch) report_failed(*pair, DocumentStatus::kError, s.message());
    }
  }
  prefix_cache_.unpin_all();
  VLR_RETURN_IF_ERROR(features_.write_to_folder());
  VLR_ASSIGN_OR_RETURN(OpenDevice::Mark end, device_.mark(true));
  if (!device_.is_gpu() || options_.on_node) finish_batches();
  timings_.push_back({std::move(start), std::move(seen), std::move(end)});
  return {};
}

/// Which prefixes stand in the cache, and which are computed now: those that at least two pairs of
/// the group have. Fills shared_; batches of the new ones have their rows already.
Result<std::vector<std::vector<WaveScorer::NewPrefix>>> WaveScorer::plan_prefixes(
    std::span<Pair*> group) {
  std::vector<std::vector<NewPrefix>> batches;
  shared_.clear();
  if (!options_.share_prefix) return batches;
  struct User {
    const Pair* first = nullptr;
    int64_t count = 0;
  };
  std::map<std::string_view, User> users;
  for (const Pair* pair : group) {
    if (pair->prompt.prefix_len == 0) continue;
    User& user = users[pair->prefix_key];
    if (user.count++ == 0) user.first = pair;
  }
  std::vector<const Pair*> wanted;
  std::vector<int64_t> lengths;
  int64_t rows = 0;
  for (const auto& [key, user] : users) {
    const int64_t length = user.first->prompt.prefix_len;
    if (const auto entry = prefix_cache_.find(key)) {
      shared_.emplace(key, *entry);
      ++call_->usage.prefix_cache_hits;
      call_->usage.shared_prefix_tokens += length * user.count;
    } else if (user.count >= 2 && length <= limits_.max_sequence) {
      wanted.push_back(user.first);
      lengths.push_back(length);
      rows += length;
    }
  }
  if (rows > prefix_cache_.capacity() && rows <= limits_.max_prefix_rows && shared_.empty()) {
    finish_batches();  // they read the memory that is about to move
    prefix_cache_.reset(0);
    VLR_RETURN_IF_ERROR(runner_.reserve_prefixes(rows));
    prefix_cache_.reset(rows);
  }
  for (const std::vector<size_t>& members :
       pack_batches(lengths, limits_.tokens, limits_.sequences)) {
    std::vector<PrefixCache::Prefix> block;
    for (size_t i : members) block.push_back({.key = wanted[i]->prefix_key, .tokens = lengths[i]});
    std::optional<int64_t> row = prefix_cache_.add(block);
    if (!row) continue;  // no room: these pairs run whole
    std::vector<NewPrefix>& batch = batches.emplace_back();
    for (size_t i : members) {
      batch.push_back({.pair = wanted[i], .row = *row});
      shared_.emplace(wanted[i]->prefix_key, PrefixCache::Entry{.row = *row, .tokens = lengths[i]});
      call_->usage.shared_prefix_tokens += lengths[i] * (users[wanted[i]->prefix_key].count - 1);
      *row += lengths[i];
    }
  }
  return batches;
}

/// The tower over the pictures that some token of the group's batches needs.
Status WaveScorer::run_vision(Wave& wave, std::span<Pair*> group,
                              std::span<const std::vector<NewPrefix>> new_prefixes) {
  std::vector<bool> needed(wave.media.size(), false);
  // Marks the pictures of tokens [begin, end) of a pair.
  const auto need = [&](const Pair& pair, int64_t begin, int64_t end) {
    const std::vector<size_t> media = media_of_visual_tokens(pair, wave);
    for (int64_t t = begin; t < end; ++t) {
      const int32_t index = pair.where.visual_index[static_cast<size_t>(t)];
      if (index >= 0) needed[media[static_cast<size_t>(index)]] = true;
    }
  };
  for (const Pair* pair : group) {
    const auto it = shared_.find(pair->prefix_key);
    need(*pair, it == shared_.end() ? 0 : it->second.tokens, std::ssize(pair->prompt.ids));
  }
  for (const auto& batch : new_prefixes) {
    for (const NewPrefix& p : batch) need(*p.pair, 0, p.pair->prompt.prefix_len);
  }
  VLR_RETURN_IF_ERROR(features_.compute(wave, needed, call_->usage));
  for (Pair* pair : group) {
    // From "token i of this sequence's pictures" to a row of the features. Tokens of a prefix that
    // stands in the cache have none and need none.
    pair->visual_rows.assign(pair->where.visual_index.size(), -1);
    std::vector<int32_t> row_of;
    for (size_t m : pair->media) {
      const int64_t first = wave.media[m].first_row;
      for (int64_t i = 0; i < wave.media[m].tokens(); ++i)
        row_of.push_back(first < 0 ? -1 : static_cast<int32_t>(first + i));
    }
    for (size_t t = 0; t < pair->visual_rows.size(); ++t) {
      const int32_t index = pair->where.visual_index[t];
      if (index >= 0) pair->visual_rows[t] = row_of[static_cast<size_t>(index)];
    }
  }
  return {};
}

Status WaveScorer::run_prefixes(std::span<const std::vector<NewPrefix>> batches) {
  for (const std::vector<NewPrefix>& batch : batches) {
    std::vector<TextInput> inputs;
    for (const NewPrefix& p : batch) {
      const auto length = static_cast<size_t>(p.pair->prompt.prefix_len);
      inputs.push_back({.ids = std::span(p.pair->prompt.ids).first(length),
                        .positions = p.pair->where.positions,
                        .positions_stride = std::ssize(p.pair->prompt.ids),
                        .offset = 0,
                        .visual_rows = std::span(p.pair->visual_rows).first(length),
                        .prefix_row = 0,
                        .prefix_len = 0});
      call_->usage.tokens += p.pair->prompt.prefix_len;
    }
    VLR_RETURN_IF_ERROR(
        runner_.prefix().start(inputs, features_.rows(), batch.front().row).error());
    ++call_->usage.batches;
  }
  return {};
}

/// The tokens of a pair that its batch runs: all, or those behind its shared prefix.
TextInput WaveScorer::text_input(const Pair& pair) const {
  TextInput input{.ids = pair.prompt.ids,
                  .positions = pair.where.positions,
                  .positions_stride = std::ssize(pair.prompt.ids),
                  .offset = 0,
                  .visual_rows = pair.visual_rows,
                  .prefix_row = 0,
                  .prefix_len = 0};
  if (const auto it = shared_.find(pair.prefix_key); it != shared_.end()) {
    const auto prefix = static_cast<size_t>(it->second.tokens);
    input.ids = input.ids.subspan(prefix);
    input.visual_rows = input.visual_rows.subspan(prefix);
    input.offset = it->second.tokens;
    input.prefix_row = it->second.row;
    input.prefix_len = it->second.tokens;
  }
  return input;
}

Status WaveScorer::start_batch(std::shared_ptr<Wave> wave, std::vector<Pair*> batch) {
  while (in_flight_.size() >= kInFlight) finish_oldest();
  std::vector<TextInput> inputs;
  for (const Pair* pair : batch) {
    inputs.push_back(text_input(*pair));
    call_->usage.tokens += std::ssize(inputs.back().ids);
  }
  ++call_->usage.batches;
  VLR_ASSIGN_OR_RETURN(const Ticket ticket, runner_.score().start(inputs, features_.rows()));
  in_flight_.push_back({.ticket = ticket, .wave = std::move(wave), .pairs = std::move(batch)});
  if (!device_.is_gpu()) finish_oldest();  // it is done: its results stream now
  return {};
}

void WaveScorer::finish_oldest() {
  InFlight oldest = std::move(in_flight_.front());
  in_flight_.pop_front();
  const Result<std::vector<float>> log_odds = runner_.score().finish(oldest.ticket);
  for (size_t i = 0; i < oldest.pairs.size(); ++i) {
    Pair& pair = *oldest.pairs[i];
    if (pair.done) continue;  // its group failed
    if (!log_odds) {
      report_failed(pair, DocumentStatus::kError, log_odds.error().message());
    } else if (!std::isfinite((*log_odds)[i])) {
      report_failed(pair, DocumentStatus::kError,
                    fmt::format("log-odds is {}: {}", (*log_odds)[i],
                                runner_.dtype() == DType::kF16
                                    ? "a value is beyond 65504, the largest of f16; bf16 has room"
                                    : "the weights or an activation are out of range"));
    } else {
      pair.result.log_odds = (*log_odds)[i];
      pair.result.score = task_.score((*log_odds)[i]);
      report(pair);
    }
  }
}

}  // namespace vlr
