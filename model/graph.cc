#include "model/graph.h"

#include <fmt/format.h>

#include <algorithm>

namespace vlr {

std::string_view sym_name(Sym s) {
  switch (s) {
    case Sym::kOne:
      return "1";
    case Sym::kTokens:
      return "T";
    case Sym::kSequences:
      return "B";
    case Sym::kVisualTokens:
      return "N";
    case Sym::kPrefixTokens:
      return "Tp";
    case Sym::kPatches:
      return "P";
    case Sym::kFrames:
      return "F";
    case Sym::kTiles:
      return "tiles";
    case Sym::kCount:
      break;
  }
  return "?";
}

std::string Dim::text() const {
  if (sym == Sym::kOne) return std::to_string(mul / div);
  std::string text(sym_name(sym));
  if (mul != 1) text = fmt::format("{}*{}", mul, text);
  if (div != 1) text += fmt::format("/{}", div);
  return text;
}

Value Graph::push(ValueInfo info) {
  values_.push_back(std::move(info));
  return {static_cast<int32_t>(values_.size()) - 1};
}

Value Graph::bound(std::string name, DType dtype, std::vector<Dim> dims) {
  return push({.name = std::move(name),
               .kind = ValueKind::kBound,
               .dtype = dtype,
               .dims = std::move(dims),
               .base = {},
               .view = {}});
}

Value Graph::weight(std::string name) {
  if (Value v = find(name); v.defined()) return v;
  return push({.name = std::move(name),
               .kind = ValueKind::kWeight,
               .dtype = DType::kF32,
               .dims = {},
               .base = {},
               .view = {}});
}

Value Graph::activation(std::string name, DType dtype, std::vector<Dim> dims) {
  return push({.name = std::move(name),
               .kind = ValueKind::kActivation,
               .dtype = dtype,
               .dims = std::move(dims),
               .base = {},
               .view = {}});
}

Value Graph::columns(Value x, int64_t begin, int64_t count) {
  ValueInfo v = info(x);
  v.name += fmt::format("[:, {}:{}]", begin, begin + count);
  v.kind = ValueKind::kView;
  v.dims.back() = count;
  v.base = x;
  v.view = [begin, count](const Tensor& t) { return t.slice(t.rank - 1, begin, count); };
  return push(std::move(v));
}

Value Graph::rows(Value x, int64_t begin, int64_t count) {
  ValueInfo v = info(x);
  v.name += fmt::format("[{}:{}]", begin, begin + count);
  v.kind = ValueKind::kView;
  if (!v.dims.empty()) v.dims.front() = count;
  v.base = x;
  v.view = [begin, count](const Tensor& t) { return t.slice(0, begin, count); };
  return push(std::move(v));
}

Value Graph::heads(Value x, int64_t head_dim) {
  ValueInfo v = info(x);
  v.kind = ValueKind::kView;
  v.dims.back() = v.dims.back().mul / head_dim;
  v.dims.emplace_back(head_dim);
  v.base = x;
  v.view = [head_dim](const Tensor& t) { return t.split_last(head_dim); };
  return push(std::move(v));
}

Value Graph::head_range(Value x, int64_t begin, int64_t count) {
  ValueInfo v = info(x);
  v.name += fmt::format("[:, {}:{}]", begin, begin + count);
  v.kind = ValueKind::kView;
  v.dims[1] = count;
  v.base = x;
  v.view = [begin, count](const Tensor& t) { return t.slice(1, begin, count); };
  return push(std::move(v));
}

Value Graph::flat(Value x) {
  ValueInfo v = info(x);
  v.kind = ValueKind::kView;
  v.dims = {v.dims[0], v.dims[1].mul * v.dims[2].mul};
  v.base = x;
  v.view = [](const Tensor& t) {
    return Tensor(t.data, t.dtype, {t.dim(0), t.dim(1) * t.dim(2)}, t.device);
  };
  return push(std::move(v));
}

Value Graph::merge_rows(Value x, int64_t factor) {
  ValueInfo v = info(x);
  v.kind = ValueKind::kView;
  v.dims = {Dim(v.dims[0].sym, v.dims[0].mul, v.dims[0].div * factor), v.dims[1].mul * factor};
  v.base = x;
  v.view = [factor](const Tensor& t) {
    return Tensor(t.data, t.dtype, {t.dim(0) / factor, t.dim(1) * factor}, t.device);
  };
  return push(std::move(v));
}

Value Graph::in_place(std::string name, Value x) {
  ValueInfo v = info(x);
  v.name = std::move(name);
  v.kind = ValueKind::kView;
  v.base = x;
  v.view = [](const Tensor& t) { return t; };
  return push(std::move(v));
}

Value Graph::root(Value v) const {
  while (info(v).kind == ValueKind::kView) v = info(v).base;
  return v;
}

Value Graph::find(std::string_view name) const {
  const auto it = std::find_if(values_.begin(), values_.end(),
                               [&](const ValueInfo& v) { return v.name == name; });
  return it == values_.end() ? Value{} : Value{static_cast<int32_t>(it - values_.begin())};
}

Status Graph::validate() const {
  for (const RowRegion& region : regions_) {
    for (size_t n = region.begin; n < region.end; ++n) {
      std::vector<Value> operands = nodes_[n].inputs;
      operands.push_back(nodes_[n].output);
      operands.insert(operands.end(), nodes_[n].more_outputs.begin(), nodes_[n].more_outputs.end());
      for (Value v : operands) {
        if (!v.defined() || info(root(v)).kind == ValueKind::kWeight) continue;
        if (info(v).dims[0].sym == region.rows && info(root(v)).dims[0].sym == region.rows)
          continue;
        return {Code::kInternal, fmt::format("graph: node {} has {}, which has no rows of {}",
                                             nodes_[n].name, info(v).name, sym_name(region.rows))};
      }
    }
  }
  std::vector<bool> written(values_.size(), false), overwritten(values_.size(), false);
  const auto index = [](Value v) { return static_cast<size_t>(v.id); };
  for (const Node& node : nodes_) {
    for (Value in : node.inputs) {
      if (!in.defined()) continue;
      if (info(root(in)).kind == ValueKind::kActivation && !written[index(root(in))]) {
        return {Code::kInternal, fmt::format("graph: node {} reads {} before it is written",
                                             node.name, info(in).name)};
      }
      for (Value v = in;; v = info(v).base) {
        if (overwritten[index(v)]) {
          return {Code::kInternal, fmt::format("graph: node {} reads {} after it was overwritten",
                                               node.name, info(v).name)};
        }
        // A view that a node wrote has contents of its own, whatever its base held.
        if (info(v).kind != ValueKind::kView || written[index(v)]) break;
      }
    }
    if (info(node.output).kind == ValueKind::kView)
      overwritten[index(info(node.output).base)] = true;
    written[index(node.output)] = written[index(root(node.output))] = true;
    for (Value out : node.more_outputs) {
      if (out.defined()) written[index(out)] = true;
    }
  }
  return {};
}

namespace {

std::string dims_text(const ValueInfo& v) {
  std::string dims;
  for (const Dim& d : v.dims) dims += (dims.empty() ? "" : ", ") + d.text();
  return fmt::format("{}[{}]", dtype_name(v.dtype), dims);
}

}  // namespace

std::string Graph::to_text() const {
  std::string out;
  for (const Node& node : nodes_) {
    std::string inputs;
    for (Value in : node.inputs) {
      if (in.defined()) inputs += (inputs.empty() ? "" : ", ") + info(in).name;
    }
    out += fmt::format("{:<44} {:<16} {} {} <- {}\n", node.name, node.op, info(node.output).name,
                       dims_text(info(node.output)), inputs);
  }
  return out;
}

std::string Graph::to_json() const {
  std::string out = "{\"values\": [";
  for (size_t i = 0; i < values_.size(); ++i) {
    const ValueInfo& v = values_[i];
    static constexpr const char* kKinds[] = {"bound", "weight", "activation", "view"};
    out += fmt::format("{}\n  {{\"id\": {}, \"name\": \"{}\", \"kind\": \"{}\"", i ? "," : "", i,
                       v.name, kKinds[static_cast<size_t>(v.kind)]);
    if (v.kind != ValueKind::kWeight) out += fmt::format(", \"type\": \"{}\"", dims_text(v));
    if (v.kind == ValueKind::kView) out += fmt::format(", \"base\": {}", v.base.id);
    out += "}";
  }
  out += "],\n\"nodes\": [";
  for (size_t i = 0; i < nodes_.size(); ++i) {
    std::string inputs;
    for (Value in : nodes_[i].inputs) {
      if (in.defined()) inputs += fmt::format("{}{}", inputs.empty() ? "" : ", ", in.id);
    }
    out +=
        fmt::format("{}\n  {{\"name\": \"{}\", \"op\": \"{}\", \"inputs\": [{}], \"output\": {}}}",
                    i ? "," : "", nodes_[i].name, nodes_[i].op, inputs, nodes_[i].output.id);
  }
  return out + "]}\n";
}

std::string Graph::to_dot() const {
  std::string out = "digraph vlr {\n  node [shape=box, fontname=\"monospace\"];\n";
  std::vector<int64_t> writer(values_.size(), -1);  // node that last wrote a storage
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    out += fmt::format("  n{} [label=\"{}\\n{}\"];\n", i, node.name, node.op);
    for (Value in : node.inputs) {
      if (!in.defined()) continue;
      const ValueInfo& source = info(root(in));
      if (const int64_t from = writer[static_cast<size_t>(root(in).id)]; from >= 0) {
        out += fmt::format("  n{} -> n{} [label=\"{}\"];\n", from, i, dims_text(info(in)));
      } else if (source.kind == ValueKind::kBound) {
        out += fmt::format("  \"{}\" [shape=ellipse];\n  \"{}\" -> n{};\n", source.name,
                           source.name, i);
      }
    }
    writer[static_cast<size_t>(root(node.output).id)] = static_cast<int64_t>(i);
    for (Value v : node.more_outputs) {
      if (v.defined()) writer[static_cast<size_t>(v.id)] = static_cast<int64_t>(i);
    }
  }
  return out + "}\n";
}

}  // namespace vlr
