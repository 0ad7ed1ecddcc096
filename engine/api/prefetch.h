/// Filling the vision cache ahead of score().
#ifndef VLR_ENGINE_API_PREFETCH_H_
#define VLR_ENGINE_API_PREFETCH_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/scheduling/preprocess.h"
#include "engine/scheduling/replica.h"
#include "engine/scheduling/vision_cache.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// One call of Reranker::prefetch(). Keeps references to everything it is made from.
class Prefetch {
 public:
  /// `cache_bytes` of host memory is what the cache has.
  Prefetch(const Request& request, Preprocessor& preprocessor, Replica& replica, VisionCache& cache,
           int64_t cache_bytes);

  /// The usage is without the call's own seconds.
  Result<PrefetchResult> run();

 private:
  /// What of a wave waits for the tower.
  struct Batch {
    explicit Batch(size_t num_media) : needed(num_media, false) {}
    std::vector<bool> needed;                        // by index into Wave::media
    std::vector<std::pair<size_t, size_t>> members;  // into Wave::media, out_.media
    int64_t rows = 0;
  };
  Status add_content(const Content& content);
  Status add_part(const Content& part);
  bool fits(const LoadedMedia& medium, MediaResult& result) const;
  Status run_batch(Wave& wave, Batch& batch);

  const Request& request_;
  Preprocessor& preprocessor_;
  Replica& replica_;
  VisionCache& cache_;
  /// Rows that go through the tower at a time: as many as the cache has room for.
  const int64_t most_rows_;
  PrefetchResult out_;
};

}  // namespace vlr

#endif  // VLR_ENGINE_API_PREFETCH_H_
