/// How far values are from a reference's.
#ifndef VLR_BENCH_SUPPORT_ERRORS_H_
#define VLR_BENCH_SUPPORT_ERRORS_H_

#include <cstdint>
#include <exception>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bench/support/subject.h"

namespace vlr::bench {

/// Calls body(offset in elements) for every element of a tensor of up to three axes.
template <class Body>
void for_each_element(const Tensor& t, Body&& body) {
  const auto size = [&](int axis) { return axis < t.rank ? t.dim(axis) : 1; };
  const auto stride = [&](int axis) { return axis < t.rank ? t.stride(axis) : 0; };
  for (int64_t i = 0; i < size(0); ++i) {
    for (int64_t j = 0; j < size(1); ++j) {
      for (int64_t k = 0; k < size(2); ++k) body(i * stride(0) + j * stride(1) + k * stride(2));
    }
  }
}

/// Elements from the first to the last one, gaps included.
int64_t span_of(const Tensor& t);
bool is_float(DType dtype);
std::vector<float> values_of(const Tensor& t);  ///< of a tensor on the host

/// Adds the bytes of its elements, without gaps.
void append_bytes(const Tensor& host, std::vector<std::byte>& out);

/// "[3, 17]": where an element of parts of a tensor, counted from part to part, is in all of it.
std::string place_of(size_t element, std::span<const Tensor> parts, const Tensor& whole);

/// `inputs`: of the output's shape, to be shown beside the worst element. `place`: its name, where
/// `output` is not all that was compared. `other`: whose the values are that are wanted.
Errors compare_values(const std::vector<float>& got, const std::vector<float>& want,
                      const Tensor& output, const Tolerance& tolerance,
                      const std::vector<std::pair<std::string, std::vector<float>>>& inputs = {},
                      const std::function<std::string(size_t)>& place = {},
                      const std::string& other = "reference");

/// What somebody's code throws becomes an error: an implementation may come from anywhere.
template <class Body>
auto without_throwing(Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::exception& e) {
    return Status(Code::kInternal, std::string("it threw: ") + e.what());
  } catch (...) {
    return Status(Code::kInternal, "it threw what is no std::exception");
  }
}

/// Where the lab looks: rows that the reference computes, places that are poisoned. By chance, or what
/// the environment's VLR_LAB_SEED says.
uint64_t seed_of_places();

int64_t host_cache_bytes();  ///< of the last level; 0: unknown

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_ERRORS_H_
