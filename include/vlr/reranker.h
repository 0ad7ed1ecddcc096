/// The C++ API: open a checkpoint, score documents against a query.
///
///   auto reranker = vlr::Reranker::open("Qwen3-VL-Reranker-2B", {});
///   if (!reranker) return fail(reranker.error().message());
///   vlr::Request request;
///   request.query.texts = {"What is the capital of China?"};
///   request.documents.resize(1);
///   request.documents[0].texts = {"The capital of China is Beijing."};
///   auto response = reranker->score(request);
///   if (response && response->results[0].scored()) use(response->results[0].score);
#ifndef VLR_RERANKER_H_
#define VLR_RERANKER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vlr/export.h"
#include "vlr/status.h"
#include "vlr/version.h"

namespace vlr {

/// An image, a frame or a video file: where it is, or its bytes.
struct Media {
  /// A path (relative ones start from Request::media_root), a file: or data: URI, or an http(s) URL
  /// where Options::allow_remote is set. With `bytes` it only names the medium in messages.
  std::string path = {};
  std::shared_ptr<const std::vector<std::byte>> bytes = {};  ///< null: read from path
};

/// A video: a list of frames, evenly sampled by the caller, or a file.
struct Video {
  std::vector<Media> frames = {};
  std::optional<Media> file = {};  ///< then there are no `frames`
};

/// A query or a document. In the prompt all videos come first, then all images, then all texts.
struct Content {
  std::vector<std::string> texts = {};
  std::vector<Media> images = {};
  std::vector<Video> videos = {};
  /// Not empty: this document could not be read; its status becomes kInvalid.
  std::string error = {};
};

struct Request {
  std::string instruction;  ///< empty: the official default instruction
  Content query;
  std::vector<Content> documents;
  std::string media_root;  ///< where relative paths start; empty: Options::media_root
  /// Of video files, instead of Options::fps and Options::max_frames.
  std::optional<double> fps = {};
  std::optional<int64_t> max_frames = {};
  /// Frames a second of lists of frames, which their times in the prompt come from; 2, as the
  /// official pipeline takes all of them, where there is none.
  std::optional<double> sample_fps = {};
  /// Of images, instead of Options::min_pixels and Options::max_pixels.
  std::optional<int64_t> min_pixels = {}, max_pixels = {};
  /// The text of each document, and that of the query, is first cut to so many tokens; 0: it is
  /// not.
  std::optional<int64_t> max_tokens_per_doc = {}, max_tokens_per_query = {};
  /// What response_json() shows: so many of the best documents, the best first (0: all, in their
  /// order), and with each what it is. score() gives all in any case.
  std::optional<int64_t> top_n = {};
  bool return_documents = false;
  /// What request_from_json() found and did not understand. It has no effect.
  std::vector<std::string> warnings = {};
};

enum class DocumentStatus {
  kOk,        ///< scored
  kEmpty,     ///< nothing in the document or the query: scored as the official pipeline does
  kBadMedia,  ///< an image or a frame could not be used
  kTooLong,   ///< special and media tokens alone exceed Options::max_length, a text max_text_bytes,
              ///< or the pair the memory cap
  kInvalid,   ///< the document makes no sense
  kCancelled,  ///< not reached before cancel()
  kError,      ///< anything else; the message says what
  kUnread,  ///< scored as the official pipeline does, but Options::max_length left nothing of it:
            ///< the query takes all tokens
};
/// "ok", "empty", "bad_media", ...
VLR_API std::string_view document_status_name(DocumentStatus status);

struct DocumentResult {
  int64_t request = 0;  ///< which request, for score() of several
  int64_t index = 0;    ///< which of its documents
  DocumentStatus status = DocumentStatus::kError;
  std::string message;  ///< what was expected and found, unless status is kOk
  float log_odds = 0;   ///< of "yes" against "no"; only if scored()
  float score = 0;      ///< sigmoid(log_odds), in (0, 1)
  int64_t num_tokens = 0;
  bool truncated = false;  ///< text was cut, to fit Options::max_length or what the request allows

  bool scored() const {
    return status == DocumentStatus::kOk || status == DocumentStatus::kEmpty ||
           status == DocumentStatus::kUnread;
  }
};

/// What a call of score() or prefetch() cost, over all of its requests.
struct Usage {
  int64_t tokens = 0;                ///< tokens run through the decoder; shared prefixes count once
  int64_t shared_prefix_tokens = 0;  ///< tokens that pairs did not run because a prefix was shared
  int64_t image_tokens = 0;          ///< visual tokens that the vision tower made
  int64_t batches = 0;
  int64_t decoded_media = 0;      ///< images and videos that were decoded
  int64_t vision_batches = 0;     ///< runs of the vision tower
  int64_t vision_cache_hits = 0;  ///< images and videos that it had seen before
  int64_t prefix_cache_hits = 0;  ///< prefixes that an earlier call had left
  int64_t replayed_batches = 0;   ///< batches that ran as a CUDA graph
  struct Seconds {
    double load = 0;    ///< opening the model (once, whatever the call)
    double media = 0;   ///< reading, decoding, resizing
    double prompt = 0;  ///< tokens and positions
    double vision = 0;
    double text = 0;
    double total = 0;  ///< of the call
  } seconds;
};

struct Response {
  std::vector<DocumentResult> results;  ///< in the order of Request::documents
  Usage usage;                          ///< of the whole call, also where it has several requests
};

/// What prefetch() made of an image or a video.
struct MediaResult {
  std::string name;  ///< its path
  /// kOk: its features are in the cache, and in the folder of one that has a folder.
  DocumentStatus status = DocumentStatus::kBadMedia;
  std::string message;      ///< what was wrong, unless status is kOk
  int64_t tokens = 0;       ///< that it takes in a prompt
  bool was_cached = false;  ///< there was nothing to do
};
struct PrefetchResult {
  std::vector<MediaResult> media;
  Usage usage;
};

/// A pair as the model sees it.
struct Explanation {
  DocumentResult result;  ///< status, message, num_tokens, truncated; never scored
  std::string prompt;     ///< rendered, placeholders expanded
  std::vector<int32_t> token_ids;
  std::vector<int32_t> positions;  ///< [3, num_tokens]: time, row, column
  int64_t num_tokens_before_truncation = 0;
  int64_t prefix_tokens = 0;  ///< leading tokens that do not depend on the document
  /// Time, rows, columns, in patches.
  std::vector<std::array<int64_t, 3>> image_grids, video_grids;
};

/// Receives values of the graphs as they are computed: "text.0/layers.3.mlp.residual", shape, f32
/// data that is valid during the call.
using ValueObserver =
    std::function<void(std::string_view name, std::span<const int64_t> shape, const float* data)>;

/// Time of one op of one run, for every node in order.
struct NodeTiming {
  std::string run;   ///< "vision.0", "prefix.0", "text.0"
  std::string name;  ///< "layers.3.mlp.down_proj"
  std::string op;    ///< "linear"
  double seconds = 0;
  double flops = 0;
  double bytes = 0;
};

/// A copy of weights that are not on the GPU for good, beside the nodes of a run.
struct CopyTiming {
  std::string run;   ///< as NodeTiming::run
  std::string name;  ///< "model.language_model.layers.3."
  double start = 0;  ///< seconds since the run's first node started; negative: before that
  double seconds = 0;
  double bytes = 0;
};

/// Bytes that are held for a purpose from now on: on the device, and in host memory beside it,
/// which is pinned for a GPU. On the CPU the device's memory is what passes work in.
struct MemoryEvent {
  enum class Phase { kLoad, kScore };
  std::string_view purpose = {};  ///< "weights", "arena", "inputs", ...; valid during the call
  std::string_view layer = {};    ///< "layers.3": its weights alone; empty: all of the purpose
  int64_t device_bytes = 0;       ///< of the purpose, or of the layer
  int64_t host_bytes = 0;         ///< of the purpose, or of the layer
  int64_t device_total = 0;       ///< of all purposes
  int64_t host_total = 0;         ///< of all purposes
  Phase phase = Phase::kLoad;     ///< kScore: open() is done
};

/// How far opening a model is.
struct LoadProgress {
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;
  std::string_view what;  ///< "weights", which bytes are of; then "kernels" and "self-check"
};

struct Options {
  std::string device = "auto";  ///< auto | cpu | cuda | cuda:N
  /// Of activations and, on a GPU, of weights: auto | f32 | bf16 | f16. The CPU computes in f32, a
  /// GPU in the checkpoint's bf16 or f16.
  std::string dtype = "auto";
  /// Options for cards of a size, where they are left at their defaults: high (24 GB and more: 16
  /// bits, 8 documents of full length in a batch, 32,768 tokens each), mid (16 GB: int8, 4,
  /// 16,384), low (12 GB and less: nf4, 2, 8,192), auto (by gpu_memory and the card), or empty:
  /// none. Memory may allow smaller batches only; short documents share one as it has room.
  std::string preset = {};
  /// The text decoder's linear layers, quantised when the model is opened: none, nf4, int8, fp8 or
  /// another mode of docs/quantisation.md. Empty: as the checkpoint has them. What is stored
  /// quantised can only choose how its format computes.
  std::string quant = {};
  /// More of that for single layers, "PATTERN=MODE", the last match counting: "vision=nf4",
  /// "layers.0.=none", "mlp.down_proj=int8-weight". A rule that matches nothing is an error.
  std::vector<std::string> quant_rules = {};
  /// Whether open() holds quantised weights against what they were before, and refuses a model that
  /// is broken (kDataLoss).
  bool self_check = true;
  /// On a GPU: the embedding table stays in pinned memory of the host, read row by row. On the CPU
  /// it is never anywhere else.
  bool host_embeddings = false;
  /// On a GPU: which layers stay in pinned memory of the host, or on disk, and are copied to it
  /// ahead of their use, as in "layers.18-35=disk,vision=cpu", a JSON object as Hugging Face's
  /// device_map, or the path of a file with one (docs/memory.md); "layers.0-3=cpu-exec" are
  /// computed on the CPU. Empty or "auto": as gpu_memory wants.
  std::string device_map = {};
  /// A folder for layers on disk, in the form in which they are copied: written when it is opened
  /// for the first time. Several processes may share it.
  std::string offload_folder = {};
  /// On a GPU: the same bits for a pair whatever its batch. False allows any library algorithm.
  bool exact = true;
  /// Most bytes of GPU memory to take, the CUDA context included; 0: nine tenths of what is free.
  int64_t gpu_memory = 0;
  /// Keys and values of query prefixes that stay for the next request with that query.
  int64_t prefix_cache_bytes = int64_t{256} << 20;
  /// Host memory for features of images and videos, found again by content: 0: none. On a GPU it is
  /// pinned. Taken as it is needed.
  int64_t vision_cache_bytes = int64_t{1} << 30;
  /// A folder that keeps them for other processes and later ones, at most so many bytes in all;
  /// empty: none. Weights, precision and device are part of what is looked up.
  std::string vision_cache_dir = {};
  int64_t vision_cache_dir_bytes = int64_t{16} << 30;
  bool record_small_batches = true;  ///< on a GPU: replay small batches as CUDA graphs
  bool measure_kernels = true;       ///< on a GPU: choose library algorithms by measurement at open
  /// Fusions to leave out, to see what they bring: residual, qk, gelu, quantize.
  std::vector<std::string> no_fuse = {};
  /// At most 1024; 0: one per CPU that affinity and the quotas of control groups allow. Where the
  /// system refuses some of them, the others do the work, and `log` says so.
  int num_threads = 0;
  int64_t max_length = 10240;   ///< tokens of a pair before the fixed tail; longer text is cut
  std::string media_root = {};  ///< where relative media paths start; empty: the working directory
  /// Which files of this machine media may be: "anywhere"; "below_media_root", wherever symbolic
  /// links lead; or "never". Whoever passes on requests of others wants one of the latter two.
  std::string local_files = "anywhere";
  /// Literal special tokens in user text act as such, as in the official pipeline.
  bool allow_special = false;
  /// A pair whose media fail is scored by the official pipeline's fallback prompt.
  bool compat_null = false;
  /// Frames are first resized to multiples of this: 32, or 64 as qwen-vl-utils 0.0.14 on PyPI.
  int frame_factor = 32;
  /// Of all texts of a side, UTF-8; a pair with more is kTooLong. Tokenising takes 30 bytes a byte.
  int64_t max_text_bytes = int64_t{16} << 20;
  // Media. Defaults are the official pipeline's (docs/media.md).
  int64_t min_pixels = 4 * 1024;             ///< of an image, after resizing
  int64_t max_pixels = 1800 * 1024;          ///< of an image, after resizing
  int64_t total_pixels = 7680 * 1024;        ///< of all frames of a list of frames together
  int64_t max_decoded_pixels = 178'956'970;  ///< of an image or a frame; larger ones are refused
  bool exif = false;                         ///< turn images as their EXIF orientation says
  /// Which frames of a video file: "official" takes `fps` a second, 4 at least and `max_frames` at
  /// most; "uniform+ends" takes `num_frames`, the first, the last and evenly spaced ones between.
  std::string video_sampling = "official";
  double fps = 1;
  int64_t max_frames = 64;  ///< also of a list of frames; longer ones are thinned out
  int64_t num_frames = 8;
  int64_t max_media_bytes = int64_t{1} << 30;  ///< of an encoded image, frame or video
  bool allow_remote = false;                   ///< http: and https: URLs
  bool allow_private_addresses =
      false;                            ///< URLs that lead to loopback, private or link-local hosts
  double remote_timeout = 30;           ///< seconds for one medium
  double remote_request_timeout = 300;  ///< seconds for all URLs of a request
  int64_t max_remote_bytes = int64_t{256} << 20;  ///< of a medium behind a URL
  int64_t batch_tokens = 0;  ///< token budget of a batch; 0: chosen for the device
  /// Rows of products and activations at a time, a multiple of 64; 0: as the memory plan chooses.
  int64_t row_chunk = 0;
  bool share_prefix = true;  ///< compute the tokens that pairs of a query have in common once
  std::map<std::string, std::string> impls = {};  ///< implementations by name: op -> implementation
  /// Warnings, and what a preset set, one line each; any thread, one at a time.
  std::function<void(std::string_view)> log = {};
  /// While a model is opened: several times a second at most, from the thread that opens it.
  std::function<void(const LoadProgress&)> on_progress = {};
  ValueObserver on_value = {};                             ///< null: nothing is observed
  std::function<bool(std::string_view)> wants_value = {};  ///< which names on_value gets; null: all
  std::function<void(const NodeTiming&)> on_node = {};     ///< null: nodes are not timed
  /// After the nodes of a run, if on_node is there too.
  std::function<void(const CopyTiming&)> on_copy = {};
  /// Told of every change of what is held for a purpose, and of each layer once weights are loaded:
  /// by the thread that makes the change, one at a time, also while the reranker is destroyed. Must
  /// not throw nor call the reranker.
  std::function<void(const MemoryEvent&)> on_memory = {};
};

/// Bytes that a model will take, by purpose.
struct MemoryPlan {
  struct Part {
    std::string name;
    int64_t bytes = 0;
  };
  std::vector<Part> parts;
  int64_t cap = 0;           ///< Options::gpu_memory
  int64_t smallest_cap = 0;  ///< under which such work runs on a GPU; 0: any, or none
  /// What was chosen so that the cap is kept: what is where, sizes of batches; for people.
  struct Choice {
    std::string name, value;
  };
  std::vector<Choice> choices = {};
  /// Memory of the host beside the device's: pinned for a GPU.
  std::vector<Part> host_parts = {};
  struct Layer {
    std::string name;  ///< "layers.3", "visual.blocks.5", "embed_tokens", as in a device map
    int64_t device_bytes = 0, host_bytes = 0;
    int64_t disk_bytes = 0;  ///< in Options::offload_folder
  };
  std::vector<Layer> layers = {};  ///< the weights of each, in the model's order
  std::string preset = {};         ///< what Options::preset set and why; empty: none
  /// With Workload::pictures: SVG documents of what lies where in the memory that a pass works in,
  /// node by node, by pass: "text", and "vision" if there are images.
  std::map<std::string, std::string> pictures = {};
  int64_t total() const {
    int64_t sum = 0;
    for (const Part& p : parts) sum += p.bytes;
    return sum;
  }
  int64_t disk_bytes() const {
    int64_t sum = 0;
    for (const Layer& l : layers) sum += l.disk_bytes;
    return sum;
  }
};

/// What plan() assumes about the work, at most.
struct Workload {
  int64_t documents = 100;
  int64_t tokens_per_document = 256;  ///< with the query, without images
  int64_t images_per_document = 0;
  int64_t images_per_query = 0;
  int64_t patches_per_image = 4800;  ///< 1280 x 960 pixels
  bool pictures = false;             ///< whether to fill MemoryPlan::pictures
};

/// Called for every document once it has its status; may be called from the thread of score() only.
using OnResult = std::function<void(const DocumentResult&)>;

/// A model that is ready to score. Move-only: one that was moved from gives errors and empty texts.
/// One thread at a time may call it, but for cancel(). score() and prefetch() while one of them is
/// running, in another thread or from its own callback, are kInvalidArgument; the other calls may be
/// made from callbacks. After fork() a child has to open its own; this one gives it errors.
class VLR_API Reranker {
 public:
  /// Opens a checkpoint folder: config.json, tokenizer.json, model.safetensors or its shards.
  /// The error names the option, the file or the tensor that it is about: kInvalidArgument,
  /// kUnimplemented, kNotFound, kDataLoss (damaged); or it is kOutOfMemory or kDevice.
  static Result<Reranker> open(const std::string& path, const Options& options);

  /// What open() and score() take at most for such work, from config.json and, if there are
  /// weights, the headers of their files. kOutOfMemory: more than Options::gpu_memory; names the
  /// smallest cap that works.
  static Result<MemoryPlan> plan(const std::string& path, const Options& options,
                                 const Workload& workload);

  Reranker(Reranker&&) noexcept;
  Reranker& operator=(Reranker&&) noexcept;
  ~Reranker();

  /// Scores every document of a request. The error is that of a request that makes no sense as a
  /// whole; what goes wrong with a document stands in its result. A document's score does not
  /// depend on the others.
  Result<Response> score(const Request& request, const OnResult& on_result = nullptr);

  /// The same for several requests, whose pairs share batches. One response a request, in order.
  Result<std::vector<Response>> score(std::span<const Request> requests,
                                      const OnResult& on_result = nullptr);

  /// Fills the vision cache ahead: the images and videos of a request are decoded and go through
  /// the vision tower, as score() would have it. One result for each: the query's, then those of
  /// every document, videos before images. kInvalidArgument: no cache, no vision tower.
  Result<PrefetchResult> prefetch(const Request& request);

  /// What score() would feed to the model, for every document of the request.
  Result<std::vector<Explanation>> explain(const Request& request);

  /// Ends a running score() after its current batch; what was not reached becomes kCancelled. It
  /// returns at once: who wants the results waits for score() to return, for the batch that runs and
  /// for media and texts that are being prepared, which are not cut short. prefetch() and explain()
  /// are not ended. Any thread.
  void cancel();

  std::string_view model_name() const;  ///< last part of the path
  std::string_view device() const;      ///< "cpu", "cuda:0 (NVIDIA H200)"
  std::string_view dtype() const;       ///< of activations: "f32", "bf16", "f16"
  std::string_view quant() const;       ///< of linear layers: "none", "nf4", ..., "mixed"
  std::string_view preset() const;      ///< what Options::preset set and why; empty: none
  /// Bytes taken by purpose and by layer, now, and the most that were ever taken on the device.
  MemoryPlan memory() const;
  int64_t peak_memory() const;

 private:
  class Impl;
  explicit Reranker(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vlr

#endif  // VLR_RERANKER_H_
