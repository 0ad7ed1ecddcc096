/// JSON read value by value, once, from front to back: what a request is read with. No tree is made,
/// so memory is what the reader of it keeps. A text that is not JSON is an error of the whole. What
/// is wrong within a string is a defect of that string, and reading goes on behind it.
#ifndef VLR_ENGINE_API_JSON_READER_H_
#define VLR_ENGINE_API_JSON_READER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "vlr/status.h"

namespace vlr {

/// The text has to stay.
class JsonReader {
 public:
  static constexpr int kMaxDepth = 64;
  enum class Kind : uint8_t { kNull, kBoolean, kNumber, kString, kArray, kObject };

  explicit JsonReader(std::string_view text);

  /// Of the value at hand; kNull where the text is not JSON.
  Kind kind();
  /// Goes behind it; what it is in the text.
  std::string_view skip();

  struct String {
    std::string text;    ///< valid UTF-8: U+FFFD stands for what is not
    std::string defect;  ///< the first one: half a surrogate pair, bytes that are not UTF-8, ...
  };
  /// The string at hand.
  String string();

  /// Calls body() at every element of the array at hand, of which body takes as much as it likes.
  template <class F>
  void each(F&& body) {
    for (enter(); next(']');) take(body);
    leave();
  }
  /// Calls body(key) at every value of the object at hand.
  template <class F>
  void members(F&& body) {
    for (enter(); next('}');) {
      const String key = member_key();
      take([&] { body(key); });
    }
    leave();
  }

  /// Nothing may follow the value that was read.
  void finish();
  /// Makes the text unreadable from here on for another reason.
  void give_up(std::string why);

  bool ok() const { return error_.empty(); }
  /// "not JSON: expected ',' or ']' at line 2, column 7, got 'x'".
  const std::string& error() const { return error_; }
  /// Whether what is not JSON is the beginning of it.
  bool ended_early() const { return ended_early_; }

 private:
  template <class F>
  void take(F&& body) {
    const size_t begin = pos_;
    if (ok()) body();
    if (ok() && pos_ == begin) skip();
  }
  void space();
  void expected(std::string_view what);
  void enter();
  void leave();
  bool next(char close);
  String member_key();
  void literal(std::string_view word);
  void number();
  void read_string(String* out);
  void escape(String* out);

  std::string_view text_;
  size_t pos_ = 0;
  int depth_ = 0;
  bool first_ = false;  // of an array or an object: no comma is due
  bool ended_early_ = false;
  std::string error_;
};

/// "null", "boolean", "number", "string", "array", "object".
std::string_view json_kind_name(JsonReader::Kind kind);

enum class JsonExtent { kWhole, kBeginning, kNeither };
/// Whether a text is JSON, could be the beginning of it, or neither.
JsonExtent json_extent(std::string_view text);

}  // namespace vlr

#endif  // VLR_ENGINE_API_JSON_READER_H_
