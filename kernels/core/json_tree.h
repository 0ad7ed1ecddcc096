/// JSON that others wrote, as a tree of nlohmann's.
#ifndef VLR_KERNELS_CORE_JSON_TREE_H_
#define VLR_KERNELS_CORE_JSON_TREE_H_

#include <cstddef>
#include <istream>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <streambuf>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/core/text.h"
#include "vlr/status.h"

namespace vlr {

/// A tree's destructor allocates, and ends the process if it cannot: what it needs is set aside
/// before the tree is built, and given back just before it goes.
template <class Json>
class JsonTree {
 public:
  /// kDataLoss for what is no JSON or is beyond the bounds, kOutOfMemory.
  static Result<JsonTree> parse(std::string_view text, size_t max_bytes) {
    VLR_ASSIGN_OR_RETURN(const size_t values, check_json_bounds(text, max_bytes, kMaxJsonDepth));
    const Status no_memory(Code::kOutOfMemory,
                           "host memory for JSON of " + std::to_string(text.size()) + " bytes");
    JsonTree tree;
    // Of values that wait for their end there is a vector, which has two sizes while it grows.
    tree.spare_.reset(new (std::nothrow) char[kSpare + 3 * sizeof(Json) * values]);
    if (!tree.spare_) return no_memory;
    try {
      // A stream, as parse() has its tree on the stack, where it would end within the exception.
      View view(text);
      std::istream in(&view);
      in >> tree.root_;
      if (in >> std::ws; in.peek() != std::char_traits<char>::eof())
        return Status(Code::kDataLoss, "not JSON: text follows its end");
    } catch (const typename Json::exception& e) {
      return Status(Code::kDataLoss, "not JSON: " + in_quotes(json_reason(e.what())));
    } catch (const std::bad_alloc&) {
      return no_memory;
    }
    return tree;
  }
  ~JsonTree() { spare_.reset(); }
  JsonTree(JsonTree&&) = default;

  const Json& root() const { return root_; }
  Json take() && { return std::move(root_); }

 private:
  struct View : std::streambuf {
    explicit View(std::string_view text) {
      char* begin = const_cast<char*>(text.data());  // nothing writes
      setg(begin, begin, begin + text.size());
    }
  };
  static constexpr size_t kSpare = 1 << 16;
  JsonTree() = default;

  std::unique_ptr<char[]> spare_;
  Json root_;
};

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_JSON_TREE_H_
