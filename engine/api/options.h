/// The table of options: what each member of vlr::Options is called, means and may be. The checks
/// of open(), the C API, the command's flags and docs/options.md come from it. A new option is a
/// member of Options and a row here.
#ifndef VLR_ENGINE_API_OPTIONS_H_
#define VLR_ENGINE_API_OPTIONS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "vlr/options.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

enum class OptionGroup { kModel, kMemory, kMedia, kExperiments };
inline constexpr OptionGroup kOptionGroups[] = {OptionGroup::kModel, OptionGroup::kMemory,
                                                OptionGroup::kMedia, OptionGroup::kExperiments};
std::string_view option_group_name(OptionGroup group);

/// What of a command an option acts on, so that a command shows the options that it uses: bits.
enum OptionUse : unsigned {
  kRunsModel = 1,    ///< where and how a model runs, whatever it is given
  kTakesPairs = 2,   ///< how long pairs may be, and what stays of them
  kReadsTexts = 4,   ///< what texts and failed documents mean
  kReadsMedia = 8,   ///< where media may come from and how they are sized
  kVisionCache = 16  ///< what is kept of images and videos
};

using OptionMember =
    std::variant<bool Options::*, int Options::*, int64_t Options::*, double Options::*,
                 std::string Options::*, std::vector<std::string> Options::*,
                 std::map<std::string, std::string> Options::*>;

struct OptionInfo {
  std::string_view name;  ///< of the member, letter for letter
  OptionMember member;
  OptionGroup group;
  unsigned uses;                ///< of OptionUse
  std::string_view flag;        ///< of the command; of what is true by default it switches it off
  std::string_view value = {};  ///< what the flag takes, as help shows it: "N"; SIZE: bytes
  std::string_view doc;
  std::string_view flag_doc = {};                  ///< of a flag that switches off: what that means
  std::optional<int64_t> least = {}, most = {};    ///< of whole numbers
  int64_t multiple_of = 1;                         ///< of whole numbers
  std::span<const std::string_view> choices = {};  ///< of texts, and of entries of a list
  Status (*check)(const Options&) = nullptr;       ///< what else its value has to be

  bool is_size() const { return value == "SIZE"; }
};

/// All of them, by group.
std::span<const OptionInfo> option_table();
/// Null: there is none of this name.
const OptionInfo* find_option(std::string_view name);

/// "true or false", "whole number", "bytes", "list", ...
std::string_view option_type_name(const OptionInfo& info);

/// A value from text, whatever values make sense; kInvalidArgument where the text is none of the
/// option's type. Whole numbers of bytes may have a unit: "20GB", "1.5 GiB". Lists are separated by
/// commas and replace what was there, entries of maps are "key=value".
Status parse_option(const OptionInfo& info, std::string_view text, Options& options);
/// What parse_option() takes; sizes as "1GiB" where that is exact.
std::string format_option(const OptionInfo& info, const Options& options);
Result<int64_t> parse_size(std::string_view text);

/// Whether a value makes sense: "options: max_length must be at least 1, got 0".
Status check_option(const OptionInfo& info, const Options& options);
/// Whether all do.
Status check_options(const Options& options);

}  // namespace vlr

#endif  // VLR_ENGINE_API_OPTIONS_H_
