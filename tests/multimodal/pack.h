// Reads what tests/fixtures/make_image_fixtures.py packs: lines of text with payloads behind them.
#ifndef VLR_TESTS_MULTIMODAL_PACK_H_
#define VLR_TESTS_MULTIMODAL_PACK_H_

#include <cstdint>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace vlr {

class Pack {
 public:
  explicit Pack(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
    if (bytes_.empty()) throw std::runtime_error(path + ": missing or empty");
  }
  bool done() const { return at_ == bytes_.size(); }
  std::istringstream line() {
    const size_t end = bytes_.find('\n', at_);
    if (end == std::string::npos) throw std::runtime_error("pack: no line");
    std::istringstream text(bytes_.substr(at_, end - at_));
    at_ = end + 1;
    return text;
  }
  std::vector<uint8_t> take(int64_t count) {
    if (count < 0 || static_cast<size_t>(count) > bytes_.size() - at_)
      throw std::runtime_error("pack: too short");
    const auto begin = bytes_.begin() + static_cast<int64_t>(at_);
    at_ += static_cast<size_t>(count);
    return {begin, begin + count};
  }

 private:
  std::string bytes_;
  size_t at_ = 0;
};

}  // namespace vlr

#endif  // VLR_TESTS_MULTIMODAL_PACK_H_
