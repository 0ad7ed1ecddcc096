/// From requests to sequences: media are loaded once each, prompts built, tokens placed.
#ifndef VLR_ENGINE_SCHEDULING_PREPROCESS_H_
#define VLR_ENGINE_SCHEDULING_PREPROCESS_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/hash.h"
#include "engine/scheduling/vision_cache.h"
#include "engine/tasks/task.h"
#include "kernels/core/thread_pool.h"
#include "model/config.h"
#include "model/mrope_positions.h"
#include "multimodal/media.h"
#include "multimodal/source.h"
#include "multimodal/video.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// An image or a video that some pair of a wave names.
struct LoadedMedia {
  std::string name;                                     ///< for messages: the path
  Result<Patches> patches = Patches{};                  ///< without data if `features` are there
  Hash128 content;                                      ///< equal for equal patches
  std::shared_ptr<const CachedFeatures> features = {};  ///< from the cache
  int64_t first_row = -1;  ///< of its features, once they are on the device
  int64_t tokens() const {
    return patches ? patches->grid_t * patches->grid_h * patches->grid_w / kPatchesPerToken : 0;
  }
};

/// One document of one request, ready for the model or with the reason why not.
struct Pair {
  DocumentResult
      result;  ///< request, index, num_tokens, truncated; status kOk or kEmpty: to be scored
  Prompt prompt;
  SequencePositions where;
  std::vector<int32_t> visual_rows;  ///< [S], rows of VisionFeatures or -1, once they are known
  bool done = false;                 ///< its result was reported
  std::vector<size_t>
      media;  ///< into Wave::media, in the order of the sequence's placeholders: images, videos
  std::vector<size_t> images, videos;  ///< the same, apart
  std::string prefix_key;  ///< equal for pairs that can share their first prompt.prefix_len tokens,
                           ///< also in different calls
};

/// Pairs that are worked on together, and their media.
struct Wave {
  std::vector<Pair> pairs;
  std::deque<LoadedMedia> media;
  int64_t tokens = 0, visual_tokens = 0;
  int64_t decoded = 0;     ///< pictures and videos
  Usage::Seconds seconds;  ///< spent on preparing it

  std::map<std::string, size_t> media_by_key;
  std::map<int64_t, Result<PromptBuilder>> builders;  ///< by request
  std::map<int64_t, bool> query_cut;                  ///< by request: to max_tokens_per_query
};

/// Into Wave::media, for every number that pair.where.visual_index counts to.
std::vector<size_t> media_of_visual_tokens(const Pair& pair, const Wave& wave);

/// Which document of which request.
struct PairRef {
  int64_t request = 0, index = 0;
};

/// Keeps references to everything it is made from. One thread at a time.
class Preprocessor {
 public:
  /// `want_text` fills Prompt::text.
  Preprocessor(const Task& task, const Tokenizer& tokenizer, const ModelConfig& config,
               const Options& options, ThreadPool& threads, bool want_text = false);

  /// What tokenising holds between calls, at most.
  static int64_t scratch_bytes(const ThreadPool& threads) {
    return threads.num_threads() * static_cast<int64_t>(Encoder::kMostBytes);
  }

  /// From now on media are looked up in a cache, whose features have `row_bytes` bytes a token;
  /// null for none. Patches go to memory from `memory`.
  void set_cache(VisionCache* cache, int64_t row_bytes) {
    cache_ = cache;
    feature_row_bytes_ = row_bytes;
  }
  void set_memory(PatchMemory memory) { media_options_.memory = std::move(memory); }

  /// Appends pairs to a wave: loads media that it does not have yet, then builds prompts, both on
  /// all threads. Texts are cut to `max_length` tokens of a pair.
  void prepare(std::span<const Request> requests, std::span<const PairRef> refs, int64_t max_length,
               Wave& wave);

  /// That requests of another call follow: the time for their URLs begins anew.
  void begin_call() { load_times_.clear(); }

  /// Loads the media of a content alone, as a part of the request: indices into Wave::media, videos
  /// first.
  std::vector<size_t> load_media(const Content& content, const Request& request, Wave& wave);

 private:
  struct SideMedia {
    std::vector<size_t> images, videos;  // into Wave::media
  };
  std::string_view root_of(const Request& request) const;
  MediaOptions media_options(const Request& request) const;
  SideMedia add_media(const Content& content, const Request& request, Wave& wave);
  Result<PromptSide> prompt_side(const Content& content, const SideMedia& media,
                                 const Wave& wave) const;
  /// Cuts the texts of a side to so many tokens, if there is a limit; whether there were more.
  bool cut_texts(PromptSide& side, std::optional<int64_t> max_tokens, Encoder& encoder) const;
  void build(const Request& request, const PairRef& ref, const SideMedia& query,
             const SideMedia& document, int64_t max_length, Wave& wave, Encoder& encoder,
             Pair& pair) const;

  enum class Kind : uint8_t { kImage, kFrames, kVideo };
  struct LoadJob {
    size_t media = 0;  // into Wave::media
    Kind kind = Kind::kImage;
    std::vector<const Media*> files = {};  // one, but for frames
    const Request* request = nullptr;      // where paths start, how many frames
    std::string decoding = {};             // its decoding_key()
  };
  void run_jobs(Wave& wave);
  using Encoded = std::shared_ptr<const std::vector<std::byte>>;
  Result<Encoded> read(const LoadJob& job, size_t file) const;
  std::string decoding_key(const LoadJob& job) const;
  VideoOptions video_options(const Request& request) const;
  Result<Patches> load(const LoadJob& job, LoadedMedia& media, bool& decoded) const;

  const Task& task_;
  const ModelConfig& config_;
  const Options& options_;
  ThreadPool& threads_;
  bool want_text_;
  std::vector<Encoder> encoders_;  // one per thread
  MediaOptions media_options_;
  SourceOptions source_options_;
  /// Of each request of this call: how long its media have been loaded, and until when its URLs may
  /// be read by the jobs at hand.
  struct LoadTime {
    double spent = 0;  // seconds
    std::chrono::steady_clock::time_point deadline = {};
  };
  std::map<const Request*, LoadTime> load_times_;
  const std::string decoders_ = decoder_versions();
  VisionCache* cache_ = nullptr;
  int64_t feature_row_bytes_ = 0;
  std::vector<LoadJob> jobs_;  // of the current prepare()
};

}  // namespace vlr

#endif  // VLR_ENGINE_SCHEDULING_PREPROCESS_H_
