/// What memory is held for: one name a purpose, so that plans, profiles and counters have the same
/// rows. kernels/ and the devices know none of them.
#ifndef VLR_ENGINE_RUNTIME_PURPOSES_H_
#define VLR_ENGINE_RUNTIME_PURPOSES_H_

#include <string_view>

namespace vlr::purposes {

inline constexpr std::string_view kWeights = "weights",
                                  kMappedWeights = "weights, mapped from the checkpoint",
                                  kCopiedWeights = "weights, fused or quantised copies",
                                  kDecodedWeights = "decoded weights", kDiskLayers = "disk layers";
/// What passes work in: activations, workspace, and what is carried between sections.
inline constexpr std::string_view kArena = "arena";
inline constexpr std::string_view kInputs = "inputs", kPrefixes = "prefix keys and values",
                                  kFeatures = "vision features", kPatches = "decoded patches",
                                  kVisionCache = "vision cache", kTexts = "tokenizer scratch";
/// While a model is loaded and opened.
inline constexpr std::string_view kLoading = "loading", kUploads = "uploads",
                                  kQuantising = "weights to quantise",
                                  kWritingDiskLayers = "disk layers, being written",
                                  kMeasuring = "measuring and checks";
inline constexpr std::string_view kContext = "CUDA context, about";  ///< planned, not counted

}  // namespace vlr::purposes

#endif  // VLR_ENGINE_RUNTIME_PURPOSES_H_
