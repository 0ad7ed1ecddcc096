/// A picture of what lies where in a run's arena, node by node.
#ifndef VLR_ENGINE_RUNTIME_ARENA_PICTURE_H_
#define VLR_ENGINE_RUNTIME_ARENA_PICTURE_H_

#include <string>
#include <string_view>

#include "engine/runtime/executor.h"
#include "model/graph.h"

namespace vlr {

/// An SVG document without scripts or references. Along x are the nodes in order, along y the
/// arena's bytes. Every activation is a rectangle from the first node that writes it to the last
/// that reads it, with data-first, data-last, data-offset and data-bytes for programs and a tooltip
/// for people; above them is the workspace of each node. `plan` is one of `graph`.
std::string arena_svg(const Graph& graph, const RunPlan& plan, std::string_view title);

}  // namespace vlr

#endif  // VLR_ENGINE_RUNTIME_ARENA_PICTURE_H_
