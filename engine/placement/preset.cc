#include "engine/placement/preset.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "engine/tasks/pair_score.h"
#include "kernels/core/format_bytes.h"

namespace vlr {
namespace {

struct Preset {
  std::string_view name, cards;
  std::string_view quant;  // empty: as the checkpoint has its weights, 16 bits
  int64_t documents;       // of full length, in a batch
  int64_t max_length;
  /// From which "auto" takes it. A "24 GB" card says 24.1e9 to 25.8e9 bytes, a 16 GB one 15.1e9 to
  /// 17e9.
  int64_t least_bytes;
};
constexpr Preset kPresets[] = {
    {"high", "24 GB and more", "", 8, 32768, 23'000'000'000},
    {"mid", "16 GB", "int8", 4, 16384, 15'000'000'000},
    {"low", "12 GB and less", "nf4", 2, 8192, 0},
};

std::string joined(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& p : parts) out += (out.empty() ? "" : ", ") + p;
  return out.empty() ? "nothing" : out;
}

}  // namespace

Status check_preset(const Options& options) {
  const std::string& name = options.preset;
  if (name.empty() || name == "auto") return {};
  for (const Preset& p : kPresets) {
    if (p.name == name) return {};
  }
  return {Code::kInvalidArgument,
          fmt::format("preset must be auto, high, mid or low, got '{}'", name)};
}

Result<ResolvedPreset> resolve_preset(Options& options, bool stored_quantized, int64_t card_bytes) {
  if (options.preset.empty()) return ResolvedPreset{};
  const Preset* preset = nullptr;
  std::string why = "as asked for";
  if (options.preset == "auto") {
    const bool capped = options.gpu_memory > 0 &&  //
                        (card_bytes == 0 || options.gpu_memory < card_bytes);
    const int64_t bytes = capped ? options.gpu_memory : card_bytes;
    preset = bytes == 0 ? &kPresets[0]
                        : std::find_if(std::begin(kPresets), std::end(kPresets),
                                       [&](const Preset& p) { return bytes >= p.least_bytes; });
    why = bytes == 0 ? "as neither a card nor gpu_memory says how much there is"
          : capped   ? fmt::format("as gpu_memory is {}", format_bytes(bytes))
                     : fmt::format("as the card has {}", format_bytes(bytes));
  } else {
    for (const Preset& p : kPresets) {
      if (p.name == options.preset) preset = &p;
    }
  }
  if (!preset) return check_preset(options).with_context("options");

  std::vector<std::string> set, kept;
  if (stored_quantized) {
    kept.emplace_back("weights as the checkpoint stores them");
  } else if (!options.quant_rules.empty()) {
    kept.emplace_back("quant_rules");
  } else if (!options.quant.empty()) {
    kept.push_back("quant " + options.quant);
  } else {
    options.quant = preset->quant;
    set.push_back(preset->quant.empty() ? "no quantisation" : "quant " + options.quant);
  }
  if (options.max_length != Options().max_length) {
    kept.push_back(fmt::format("max_length {}", options.max_length));
  } else {
    options.max_length = preset->max_length;
    set.push_back(fmt::format("max_length {}", options.max_length));
  }
  if (options.batch_tokens > 0) {
    kept.push_back(fmt::format("batch_tokens {}", options.batch_tokens));
  } else {
    options.batch_tokens = preset->documents * (options.max_length + kPairScorePrompt.tail_tokens);
    set.push_back(fmt::format("batch_tokens {} at most, {} documents of full length",
                              options.batch_tokens, preset->documents));
  }
  return ResolvedPreset{
      .name = std::string(preset->name),
      .explanation = fmt::format("preset {}, for cards of {}, {}. It sets: {}. Kept as given: {}.",
                                 preset->name, preset->cards, why, joined(set), joined(kept))};
}

}  // namespace vlr
