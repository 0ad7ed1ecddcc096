/// Which features a folder of a vision cache may give to a model.
#ifndef VLR_ENGINE_SCHEDULING_VISION_KEY_H_
#define VLR_ENGINE_SCHEDULING_VISION_KEY_H_

#include <string>

#include "engine/runtime/hash.h"
#include "engine/scheduling/replica.h"
#include "vlr/status.h"

namespace vlr {

/// A name for everything that the bits of features depend on: the tower's weights in the checkpoint
/// of `folder`, and how this machine computes with them, told by what becomes of a picture of noise.
Result<Hash128> vision_key(const std::string& folder, bool exact, Replica& replica);

}  // namespace vlr

#endif  // VLR_ENGINE_SCHEDULING_VISION_KEY_H_
