/// Checkpoints and rerankers for tests.
#ifndef VLR_TESTS_SUPPORT_CHECKPOINTS_H_
#define VLR_TESTS_SUPPORT_CHECKPOINTS_H_

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "engine/weights/make_checkpoint.h"
#include "model/synthetic.h"
#include "tests/support/temp_folder.h"
#include "vlr/reranker.h"

namespace vlr {

inline const std::filesystem::path kSource = VLR_SOURCE_DIR;
inline const std::filesystem::path kTestData = VLR_TEST_DATA_DIR;
inline const std::filesystem::path kGolden = kSource / "tests/golden";

/// The demo checkpoint: trained, 13.5 M parameters.
inline std::string demo_model() { return (kSource / "demo/model").string(); }

/// Writes the synthetic checkpoint `preset` with the demo model's tokenizer.
inline std::string make_synthetic(const testing::TempFolder& folder, const std::string& preset) {
  const std::string path = folder / preset;
  SyntheticOptions options;
  options.tokenizer_json = (kSource / "demo/model/tokenizer.json").string();
  const Status status = make_checkpoint(preset, path, options);
  EXPECT_TRUE(status.ok()) << status.message();
  return path;
}

/// Opens or ends the test program: a test without a model has nothing to say.
inline Reranker open_or_die(const std::string& path, Options options = {}) {
  if (options.num_threads == 0) options.num_threads = 2;
  if (options.device == "auto") options.device = "cpu";  // a GPU has tests of its own
  auto reranker = Reranker::open(path, options);
  if (!reranker) {
    ADD_FAILURE() << path << ": " << reranker.error().message();
    std::abort();
  }
  return *std::move(reranker);
}

/// The bits of every log-odds; all documents have to be scored.
inline std::vector<uint32_t> bits_of(const Response& response) {
  std::vector<uint32_t> out;
  for (const DocumentResult& r : response.results) {
    EXPECT_TRUE(r.scored()) << r.index << ": " << r.message;
    out.push_back(std::bit_cast<uint32_t>(r.log_odds));
  }
  return out;
}
/// `usage`, where it is given, becomes that of the call.
inline std::vector<uint32_t> score_bits(Reranker& reranker, const Request& request,
                                        Usage* usage = nullptr) {
  const auto response = reranker.score(request);
  EXPECT_TRUE(response) << response.error().message();
  if (usage) *usage = response->usage;
  return bits_of(*response);
}

inline Content text_document(std::string text) { return {.texts = {std::move(text)}}; }
inline Content image_document(const std::filesystem::path& path) {
  return {.images = {{.path = path.string()}}};
}

}  // namespace vlr

#endif  // VLR_TESTS_SUPPORT_CHECKPOINTS_H_
