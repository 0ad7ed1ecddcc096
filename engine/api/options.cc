#include "engine/api/options.h"

#include <algorithm>

#include "engine/placement/preset.h"
#include "model/quantization.h"

namespace vlr {
namespace {

constexpr std::string_view kDtypes[] = {"auto", "f32", "bf16", "f16"};
constexpr std::string_view kFusions[] = {"residual", "qk", "gelu", "quantize"};
constexpr std::string_view kSamplings[] = {"official", "uniform+ends"};

Status check_quant(const Options& o) {
  if (o.quant.empty()) return {};
  return parse_quant_mode(o.quant).error();
}

Status check_quant_rules(const Options& o) {
  for (const std::string& rule : o.quant_rules) VLR_RETURN_IF_ERROR(parse_quant_rule(rule).error());
  return {};
}

Status check_frame_factor(const Options& o) {
  if (o.frame_factor == 32 || o.frame_factor == 64) return {};
  return {Code::kInvalidArgument,
          "frame_factor must be 32 or 64, got " + std::to_string(o.frame_factor)};
}

const std::string& quant_doc() {
  static const std::string doc =
      "How the decoder's linear layers are stored and computed: " + quant_mode_names() +
      ". Empty: as the checkpoint has them";
  return doc;
}

constexpr auto kModel = OptionGroup::kModel, kMemory = OptionGroup::kMemory,
               kMedia = OptionGroup::kMedia, kExperiments = OptionGroup::kExperiments;

const OptionInfo kTable[] = {
    {.name = "device",
     .member = &Options::device,
     .group = kModel,
     .uses = kRunsModel,
     .flag = "--device",
     .value = "NAME",
     .doc = "Where the model runs: auto, cpu, cuda or cuda:N. auto takes the first GPU, else the "
            "CPU"},
    {.name = "dtype",
     .member = &Options::dtype,
     .group = kModel,
     .uses = kRunsModel,
     .flag = "--dtype",
     .value = "NAME",
     .doc = "Number format of activations and, on a GPU, of weights: auto, f32 (the CPU), bf16 or "
            "f16 (a GPU). auto takes the checkpoint's on a GPU",
     .choices = kDtypes},
    {.name = "preset",
     .member = &Options::preset,
     .group = kModel,
     .uses = kTakesPairs,
     .flag = "--preset",
     .value = "NAME",
     .doc = "Quantisation, batch and length for a card's size: auto, high (24 GB), mid (16 GB) or "
            "low (12 GB). Other options come first",
     .check = check_preset},
    {.name = "quant",
     .member = &Options::quant,
     .group = kModel,
     .uses = kRunsModel,
     .flag = "--quant",
     .value = "MODE",
     .doc = quant_doc(),
     .check = check_quant},
    {.name = "quant_rules",
     .member = &Options::quant_rules,
     .group = kModel,
     .uses = kRunsModel,
     .flag = "--quant-rule",
     .value = "PATTERN=MODE",
     .doc = "The mode of some linear layers, as in vision=nf4 or layers.0.=none. The last match "
            "counts",
     .check = check_quant_rules},
    {.name = "self_check",
     .member = &Options::self_check,
     .group = kModel,
     .uses = kRunsModel,
     .flag = "--no-self-check",
     .doc = "Compare quantised weights with what they were before, and refuse a broken model",
     .flag_doc = "Do not compare quantised weights with what they were before"},
    {.name = "exact",
     .member = &Options::exact,
     .group = kModel,
     .uses = kRunsModel,
     .flag = "--fast",
     .doc = "On a GPU: a pair gets the same bits whatever its batch",
     .flag_doc = "GPU: any library algorithm, so a score may depend on its batch"},
    {.name = "num_threads",
     .member = &Options::num_threads,
     .group = kModel,
     .uses = kRunsModel,
     .flag = "--threads",
     .value = "N",
     .doc = "CPU threads. 0: one per core",
     .least = 0},
    {.name = "max_length",
     .member = &Options::max_length,
     .group = kModel,
     .uses = kTakesPairs,
     .flag = "--max-length",
     .value = "N",
     .doc = "Most tokens of a pair before the fixed tail. Longer text is cut",
     .least = 1},
    {.name = "max_text_bytes",
     .member = &Options::max_text_bytes,
     .group = kModel,
     .uses = kTakesPairs,
     .flag = "--max-text-bytes",
     .value = "SIZE",
     .doc = "Most bytes of the text of a query or a document. Pairs with more are too long",
     .least = 1},
    {.name = "allow_special",
     .member = &Options::allow_special,
     .group = kModel,
     .uses = kReadsTexts,
     .flag = "--allow-special",
     .doc = "Special tokens that are written out in a text act as such"},
    {.name = "compat_null",
     .member = &Options::compat_null,
     .group = kModel,
     .uses = kReadsTexts,
     .flag = "--compat-null",
     .doc = "Score a pair whose media fail by the official pipeline's fallback prompt"},

    {.name = "gpu_memory",
     .member = &Options::gpu_memory,
     .group = kMemory,
     .uses = kRunsModel,
     .flag = "--gpu-memory",
     .value = "SIZE",
     .doc = "Most GPU memory to take, the CUDA context included, as in 20GB. 0: nine tenths of "
            "what is free",
     .least = 0},
    {.name = "host_embeddings",
     .member = &Options::host_embeddings,
     .group = kMemory,
     .uses = kRunsModel,
     .flag = "--host-embeddings",
     .doc = "On a GPU: keep the embedding table in pinned memory of the host"},
    {.name = "device_map",
     .member = &Options::device_map,
     .group = kMemory,
     .uses = kRunsModel,
     .flag = "--device-map",
     .value = "MAP",
     .doc = "On a GPU: layers that stay in host memory (=cpu) or on disk (=disk), or that the CPU "
            "computes (=cpu-exec), as in layers.18-35=cpu; or a JSON file. Empty or auto: as "
            "gpu_memory wants"},
    {.name = "offload_folder",
     .member = &Options::offload_folder,
     .group = kMemory,
     .uses = kRunsModel,
     .flag = "--offload-folder",
     .value = "PATH",
     .doc = "On a GPU: folder for layers on disk, which several processes may share"},
    {.name = "batch_tokens",
     .member = &Options::batch_tokens,
     .group = kMemory,
     .uses = kRunsModel,
     .flag = "--batch-tokens",
     .value = "N",
     .doc = "Most tokens of a batch. 0: chosen for the device",
     .least = 0},
    {.name = "row_chunk",
     .member = &Options::row_chunk,
     .group = kMemory,
     .uses = kRunsModel,
     .flag = "--row-chunk",
     .value = "N",
     .doc = "Rows of products and activations at a time, a multiple of 64. 0: as the memory plan "
            "chooses",
     .least = 0,
     .multiple_of = 64},
    {.name = "prefix_cache_bytes",
     .member = &Options::prefix_cache_bytes,
     .group = kMemory,
     .uses = kTakesPairs,
     .flag = "--prefix-cache-memory",
     .value = "SIZE",
     .doc = "Memory for keys and values of query prefixes, kept for the next request with that "
            "query. 0: none",
     .least = 0},
    {.name = "vision_cache_bytes",
     .member = &Options::vision_cache_bytes,
     .group = kMemory,
     .uses = kVisionCache,
     .flag = "--vision-cache-memory",
     .value = "SIZE",
     .doc = "Host memory for features of images and videos, found again by content. 0: none",
     .least = 0},
    {.name = "vision_cache_dir",
     .member = &Options::vision_cache_dir,
     .group = kMemory,
     .uses = kVisionCache,
     .flag = "--vision-cache",
     .value = "PATH",
     .doc = "Folder that keeps features of images and videos for later processes. Empty: none"},
    {.name = "vision_cache_dir_bytes",
     .member = &Options::vision_cache_dir_bytes,
     .group = kMemory,
     .uses = kVisionCache,
     .flag = "--vision-cache-size",
     .value = "SIZE",
     .doc = "Most bytes in that folder",
     .least = 0},

    {.name = "media_root",
     .member = &Options::media_root,
     .group = kMedia,
     .uses = kReadsMedia,
     .flag = "--media-root",
     .value = "PATH",
     .doc = "Folder where relative media paths start. Empty: the working directory"},
    {.name = "min_pixels",
     .member = &Options::min_pixels,
     .group = kMedia,
     .uses = kReadsMedia,
     .flag = "--min-pixels",
     .value = "N",
     .doc = "Smallest size of an image in pixels, after resizing",
     .least = 1},
    {.name = "max_pixels",
     .member = &Options::max_pixels,
     .group = kMedia,
     .uses = kReadsMedia,
     .flag = "--max-pixels",
     .value = "N",
     .doc = "Largest size of an image in pixels, after resizing",
     .least = 1},
    {.name = "total_pixels",
     .member = &Options::total_pixels,
     .group = kMedia,
     .uses = kReadsMedia,
     .flag = "--total-pixels",
     .value = "N",
     .doc = "Most pixels of all frames of a list of frames together, after resizing",
     .least = 1},
    {.name = "max_decoded_pixels",
     .member = &Options::max_decoded_pixels,
     .group = kMedia,
     .uses = kReadsMedia,
     .flag = "--max-decoded-pixels",
     .value = "N",
     .doc = "Most pixels of an image or a frame before resizing. Larger ones are refused",
     .least = 1},
    {.name = "max_media_bytes",
     .member = &Options::max_media_bytes,
     .group = kMedia,
     .uses = kReadsMedia,
     .flag = "--max-media-bytes",
     .value = "SIZE",
     .doc = "Most bytes of an encoded image, frame or video. Larger ones are refused",
     .least = 1},
    {.name = "exif",
     .member = &Options::exif,
     .group = kMedia,
     .uses = kReadsMedia,
     .flag = "--exif",
     .doc = "Turn images as their EXIF orientation says"},
    {.name = "video_sampling",
     .member = &Options::video_sampling,
     .group = kMedia,
     .uses = kReadsMedia,
     .flag = "--sampling",
     .value = "NAME",
     .doc = "Which frames of a video file are taken: official (by fps and max_frames) or "
            "uniform+ends (num_frames of them)",
     .choices = kSamplings},
    {.name = "fps",
     .member = &Options::fps,
     .group = kMedia,
     .uses = kReadsMedia,
     .flag = "--fps",
     .value = "NUMBER",
     .doc = "Frames taken from a second of a video file, with official sampling"},
    {.name = "max_frames",
     .member = &Options::max_frames,
     .group = kMedia,
     .uses = kReadsMedia,
     .flag = "--max-frames",
     .value = "N",
     .doc = "Most frames of a video file, with official sampling, and of a list of frames",
     .least = 1},
    {.name = "num_frames",
     .member = &Options::num_frames,
     .group = kMedia,
     .uses = kReadsMedia,
     .flag = "--frames",
     .value = "N",
     .doc = "Frames of a video file, with uniform+ends sampling",
     .least = 1},
    {.name = "frame_factor",
     .member = &Options::frame_factor,
     .group = kMedia,
     .uses = kReadsMedia,
     .flag = "--frame-factor",
     .value = "N",
     .doc = "Listed frames are first resized to multiples of 32 pixels, or of 64 as qwen-vl-utils "
            "0.0.14 on PyPI does it",
     .check = check_frame_factor},
    {.name = "allow_remote",
     .member = &Options::allow_remote,
     .group = kMedia,
     .uses = kReadsMedia,
     .flag = "--allow-remote",
     .doc = "Media may be http: and https: URLs"},
    {.name = "allow_private_addresses",
     .member = &Options::allow_private_addresses,
     .group = kMedia,
     .uses = kReadsMedia,
     .flag = "--allow-private-addresses",
     .doc = "Such URLs may lead to loopback, private and link-local hosts"},
    {.name = "remote_timeout",
     .member = &Options::remote_timeout,
     .group = kMedia,
     .uses = kReadsMedia,
     .flag = "--remote-timeout",
     .value = "SECONDS",
     .doc = "Longest time in seconds for a medium behind a URL"},

    {.name = "share_prefix",
     .member = &Options::share_prefix,
     .group = kExperiments,
     .uses = kRunsModel,
     .flag = "--no-share-prefix",
     .doc = "Compute the tokens that pairs of a query have in common once",
     .flag_doc = "Run every pair whole, also the tokens that pairs of a query have in common"},
    {.name = "record_small_batches",
     .member = &Options::record_small_batches,
     .group = kExperiments,
     .uses = kRunsModel,
     .flag = "--no-graphs",
     .doc = "On a GPU: replay small batches as CUDA graphs",
     .flag_doc = "GPU: never replay small batches as CUDA graphs"},
    {.name = "measure_kernels",
     .member = &Options::measure_kernels,
     .group = kExperiments,
     .uses = kRunsModel,
     .flag = "--no-measure",
     .doc = "On a GPU: measure library algorithms when a model is opened, and take the fastest",
     .flag_doc = "GPU: take library algorithms unmeasured, which opens sooner"},
    {.name = "no_fuse",
     .member = &Options::no_fuse,
     .group = kExperiments,
     .uses = kRunsModel,
     .flag = "--no-fuse",
     .value = "FUSION",
     .doc = "On a GPU: leave a fusion out, to see what it brings: residual, qk, gelu or quantize",
     .choices = kFusions},
    {.name = "impls",
     .member = &Options::impls,
     .group = kExperiments,
     .uses = kRunsModel,
     .flag = "--impl",
     .value = "OP=NAME",
     .doc = "Run an operation by the implementation of this name, as in linear=reference"},
};

}  // namespace

std::string_view option_group_name(OptionGroup group) {
  switch (group) {
    case OptionGroup::kModel:
      return "Model";
    case OptionGroup::kMemory:
      return "Memory";
    case OptionGroup::kMedia:
      return "Media";
    case OptionGroup::kExperiments:
      return "Experiments";
  }
  return "";
}

std::span<const OptionInfo> option_table() { return kTable; }

const OptionInfo* find_option(std::string_view name) {
  const auto* const found = std::find_if(std::begin(kTable), std::end(kTable),
                                         [&](const OptionInfo& i) { return i.name == name; });
  return found == std::end(kTable) ? nullptr : found;
}

}  // namespace vlr
