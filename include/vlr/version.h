/* The version of this header. A library of the same major.minor is compatible with it: below 1.0
 * its SONAME carries both. C99. */
#ifndef VLR_VERSION_H_
#define VLR_VERSION_H_

#include "vlr/export.h"

/* CMakeLists.txt reads the version from here. */
#define VLR_VERSION_MAJOR 0
#define VLR_VERSION_MINOR 2
#define VLR_VERSION_PATCH 0
#define VLR_VERSION "0.2.0"

/* For comparisons: #if VLR_VERSION_NUMBER >= 200 */
#define VLR_VERSION_NUMBER (VLR_VERSION_MAJOR * 10000 + VLR_VERSION_MINOR * 100 + VLR_VERSION_PATCH)

#ifdef __cplusplus
namespace vlr {

/// The version of the library that runs, as VLR_VERSION is that of the header.
VLR_API const char* version();

}  // namespace vlr
#endif

#endif /* VLR_VERSION_H_ */
