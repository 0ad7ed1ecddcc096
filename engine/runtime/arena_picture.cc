#include "engine/runtime/arena_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <map>
#include <vector>

#include "kernels/core/format_bytes.h"

namespace vlr {
namespace {

// In pixels. A node is as wide as fits the picture into a window, within reason.
constexpr double kLeft = 84, kTop = 78, kRight = 24, kBottom = 56, kHeight = 520, kWidth = 1400;
constexpr double kMiB = 1024 * 1024;
constexpr double kMinStep = 3, kMaxStep = 48;
constexpr double kLegendCell = 200, kLegendLine = 18;
constexpr double kLetter = 6, kLine = 12;  // about the size of the labels' font

// Light enough for a dark label on them (ColorBrewer's Set3).
constexpr const char* kColors[] = {"#8dd3c7", "#ffffb3", "#bebada", "#fb8072",
                                   "#80b1d3", "#fdb462", "#b3de69", "#fccde5",
                                   "#d9d9d9", "#bc80bd", "#ccebc5", "#ffed6f"};

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:  // XML has no control characters
        out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
    }
  }
  return out;
}

/// "layers.3.mlp.down_proj" -> {"layers.3", "mlp.down_proj"}; without a number {"", name}.
struct Place {
  std::string_view layer, role;
};
Place place_of(std::string_view name) {
  for (size_t begin = 0; begin < name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    if (name.substr(begin, end - begin).find_first_not_of("0123456789") == name.npos && end > begin)
      return {name.substr(0, end), name.substr(std::min(end + 1, name.size()))};
    begin = end + 1;
  }
  return {"", name};
}

/// 1, 2 or 5 times a power of ten, such that `count` steps or fewer cover `range`.
double tick_step(double range, double count) {
  const double power = std::pow(10.0, std::floor(std::log10(std::max(range / count, 1e-9))));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power * count >= range) return factor * power;
  }
  return 10 * power;
}

class Picture {
 public:
  Picture(const Graph& graph, const RunPlan& plan)
      : graph_(graph), plan_(plan), nodes_(std::ssize(graph.nodes())) {
    step_ =
        std::clamp(kWidth / static_cast<double>(std::max<int64_t>(nodes_, 1)), kMinStep, kMaxStep);
    width_ = step_ * static_cast<double>(nodes_);
    for (size_t v = 0; v < plan.lifetimes.size(); ++v) {
      if (plan.offsets[v] >= 0)
        roles_.try_emplace(place_of(graph.values()[v].name).role, roles_.size());
    }
    // A little air above the peak.
    scale_ = kHeight / (1.04 * static_cast<double>(std::max<int64_t>(plan.total(), 1)));
  }

  std::string draw(std::string_view title) {
    const double width = kLeft + std::max(width_, 640.0) + kRight;
    const auto columns = static_cast<size_t>((width - kLeft) / kLegendCell);
    const size_t rows = (roles_.size() + columns - 1) / columns;
    const double height = kTop + kHeight + kBottom + kLegendLine * static_cast<double>(rows);
    out_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
        "viewBox=\"0 0 {0:.0f} {1:.0f}\">\n"
        "<title>{2}</title>\n"
        "<style>text {{ font: 11px sans-serif; fill: #222; }} .name {{ font-size: 10px; }} "
        ".title {{ font-size: 16px; }} .right {{ text-anchor: end; }} "
        ".middle {{ text-anchor: middle; }} .grid {{ stroke: #ddd; }} .layer {{ stroke: #999; }} "
        ".axis {{ stroke: #222; }} .peak {{ stroke: #c00; stroke-dasharray: 6 3; }} "
        ".activation {{ stroke: #555; stroke-width: 0.5; }} .workspace {{ fill: #888; }}</style>\n"
        "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        width, height, escaped(title));
    text(kLeft, 22, "title", title);
    text(kLeft, 42, "", summary());
    axes();
    layers();
    activations();
    workspaces();
    legend(columns);
    horizontal("peak", plan_.total());
    text(kLeft + width_ - 4, y(plan_.total()) - 4, "right", "peak " + format_bytes(plan_.total()));
    return out_ + "</svg>\n";
  }

 private:
  double x(int64_t node) const { return kLeft + step_ * static_cast<double>(node); }
  double y(int64_t offset) const { return kTop + kHeight - scale_ * static_cast<double>(offset); }

  void text(double at_x, double at_y, std::string_view style, std::string_view content) {
    out_ += fmt::format("<text class=\"{}\" x=\"{:.2f}\" y=\"{:.2f}\">{}</text>\n", style, at_x,
                        at_y, escaped(content));
  }
  void vertical(std::string_view style, double at) {
    out_ += fmt::format("<path class=\"{}\" d=\"M{:.2f} {:.2f}V{:.2f}\"/>\n", style, at, kTop,
                        kTop + kHeight);
  }
  void horizontal(std::string_view style, int64_t offset) {
    out_ += fmt::format("<path class=\"{}\" d=\"M{:.2f} {:.2f}H{:.2f}\"/>\n", style, kLeft,
                        y(offset), kLeft + width_);
  }

  /// What there is, and the most that is alive at once, below which no placement gets.
  std::string summary() const {
    std::vector<int64_t> changes(static_cast<size_t>(nodes_) + 1);
    int64_t count = 0;
    for (size_t v = 0; v < plan_.lifetimes.size(); ++v) {
      const Lifetime& life = plan_.lifetimes[v];
      if (plan_.offsets[v] < 0) continue;
      ++count;
      changes[static_cast<size_t>(life.first)] += life.bytes;
      changes[static_cast<size_t>(life.last) + 1] -= life.bytes;
    }
    int64_t alive = 0, most = 0, at = 0;
    for (int64_t n = 0; n < nodes_; ++n) {
      alive += changes[static_cast<size_t>(n)];
      if (alive > most) at = n;
      most = std::max(most, alive);
    }
    std::string out =
        fmt::format("{} nodes, {} activations in {}, workspace {}", nodes_, count,
                    format_bytes(plan_.activation_bytes), format_bytes(plan_.workspace_bytes));
    if (count > 0)
      out += fmt::format("; alive at once at most {}, at {}", format_bytes(most),
                         graph_.nodes()[static_cast<size_t>(at)].name);
    return out;
  }

  void axes() {
    const double most = kHeight / scale_ / kMiB, step = tick_step(most, 8);
    const int decimals = std::max(0, -static_cast<int>(std::floor(std::log10(step) + 1e-9)));
    for (int i = 0; i * step <= most; ++i) {
      const auto offset = static_cast<int64_t>(std::llround(i * step * kMiB));
      horizontal("grid", offset);
      text(kLeft - 6, y(offset) + 4, "right", fmt::format("{:.{}f}", i * step, decimals));
    }
    const auto nodes_step = static_cast<int64_t>(
        std::max(1.0, tick_step(static_cast<double>(nodes_), std::max(1.0, width_ / 70))));
    for (int64_t n = 0; n < nodes_; n += nodes_step)
      text(x(n) + step_ / 2, kTop + kHeight + 16, "middle", std::to_string(n));
    text(kLeft - 6, kTop - 8, "right", "MiB");
    text(kLeft + width_ / 2, kTop + kHeight + 36, "middle", "node");
    out_ += fmt::format("<path class=\"axis\" fill=\"none\" d=\"M{:.2f} {:.2f}V{:.2f}H{:.2f}\"/>\n",
                        kLeft, kTop, kTop + kHeight, kLeft + width_);
  }

  /// A line where a layer begins or ends, its name or number above if there is room.
  void layers() {
    const std::vector<Node>& nodes = graph_.nodes();
    for (int64_t begin = 0, end = 0; begin < nodes_; begin = end) {
      const std::string_view layer = place_of(nodes[static_cast<size_t>(begin)].name).layer;
      for (end = begin + 1;
           end < nodes_ && place_of(nodes[static_cast<size_t>(end)].name).layer == layer;) {
        ++end;
      }
      if (begin > 0) vertical("layer", x(begin));
      const double room = x(end) - x(begin);
      const std::string_view number = layer.substr(layer.rfind('.') + 1);
      for (const std::string_view label : {layer, number}) {
        if (label.empty() || static_cast<double>(label.size() + 1) * kLetter > room) continue;
        text((x(begin) + x(end)) / 2, kTop - 8, "middle", label);
        break;
      }
    }
  }

  void activations() {
    for (size_t v = 0; v < plan_.lifetimes.size(); ++v) {
      if (plan_.offsets[v] < 0) continue;
      const Lifetime& life = plan_.lifetimes[v];
      const int64_t offset = plan_.offsets[v];
      const std::string& name = graph_.values()[v].name;
      const double left = x(life.first), top = y(offset + life.bytes),
                   width = x(life.last + 1) - left, height = y(offset) - top;
      const auto node = [&](int32_t n) { return graph_.nodes()[static_cast<size_t>(n)].name; };
      out_ += fmt::format(
          "<rect class=\"activation\" fill=\"{}\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" "
          "height=\"{:.2f}\" data-first=\"{}\" data-last=\"{}\" data-offset=\"{}\" "
          "data-bytes=\"{}\"><title>{}</title></rect>\n",
          color(place_of(name).role), left, top, width, height, life.first, life.last, offset,
          life.bytes,
          escaped(fmt::format("{}: {}, {}, from {} (node {}) to {} (node {})", name,
                              describe(plan_.tensors[v]), format_bytes(life.bytes),
                              node(life.first), life.first, node(life.last), life.last)));
      // The role will do where the whole name is too long.
      for (const std::string_view label : {std::string_view(name), place_of(name).role}) {
        if (height < kLine || static_cast<double>(label.size() + 1) * kLetter > width) continue;
        text(left + 3, (top + top + height) / 2 + 3.5, "name", label);
        break;
      }
    }
  }

  void workspaces() {
    for (size_t n = 0; n < plan_.node_workspace.size(); ++n) {
      const int64_t bytes = plan_.node_workspace[n];
      if (bytes == 0) continue;
      const Node& node = graph_.nodes()[n];
      const double top = y(plan_.activation_bytes + bytes);
      out_ += fmt::format(
          "<rect class=\"workspace\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" "
          "height=\"{:.2f}\"><title>{}</title></rect>\n",
          x(static_cast<int64_t>(n)), top, step_, y(plan_.activation_bytes) - top,
          escaped(fmt::format("workspace of {} ({}, node {}): {}", node.name, node.op, n,
                              format_bytes(bytes))));
    }
  }

  const char* color(std::string_view role) const {
    return kColors[roles_.at(role) % std::size(kColors)];
  }

  void legend(size_t columns) {
    for (const auto& [role, i] : roles_) {
      const double left = kLeft + kLegendCell * static_cast<double>(i % columns),
                   top = kTop + kHeight + kBottom + kLegendLine * static_cast<double>(i / columns);
      out_ += fmt::format(
          "<rect fill=\"{}\" stroke=\"#555\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"10\" "
          "height=\"10\"/>\n",
          color(role), left, top - 9);
      text(left + 16, top, "name", role);
    }
  }

  const Graph& graph_;
  const RunPlan& plan_;
  int64_t nodes_;
  std::map<std::string_view, size_t> roles_;  // in order of appearance, the same in every layer
  double step_ = 0, width_ = 0;               // pixels of a node, of all
  double scale_ = 0;                          // pixels of a byte
  std::string out_;
};

}  // namespace

std::string arena_svg(const Graph& graph, const RunPlan& plan, std::string_view title) {
  return Picture(graph, plan).draw(title);
}

}  // namespace vlr
