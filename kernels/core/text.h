/// Text of others: as messages and terminals show it, and JSON before a parser that builds trees
/// gets it.
#ifndef VLR_KERNELS_CORE_TEXT_H_
#define VLR_KERNELS_CORE_TEXT_H_

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "vlr/status.h"

namespace vlr {

/// With a '?' for every byte that is not UTF-8 and every character that a terminal could take for a
/// command: controls (C0 and C1), line separators, and what turns the direction of writing.
std::string printable(std::string_view text);

/// How many bytes of a text are UTF-8, from its start (Unicode 15, table 3-7).
size_t valid_utf8(std::string_view text);

/// "a text has bytes that are not UTF-8, the first at 17" of the first such text; else nothing.
std::string not_utf8(std::span<const std::string> texts);

/// The same as printable(), in '', cut behind 160 bytes: text from a file or a request in a message.
std::string in_quotes(std::string_view text);

/// Of JSON in any file or request of others.
inline constexpr int kMaxJsonDepth = 64;

/// How many values a JSON text has at most. kDataLoss for one of more than `max_bytes`, nested deeper
/// than `max_depth` levels, or with a NUL byte, which nlohmann's parser takes for the end.
Result<size_t> check_json_bounds(std::string_view json, size_t max_bytes, int max_depth);

/// What nlohmann's exceptions say, without their numbers.
std::string_view json_reason(std::string_view what);

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_TEXT_H_
