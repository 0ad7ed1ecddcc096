/* VLR_API marks what the shared library exports; everything else is hidden, and in a static library
 * (VLR_STATIC) all of it, so that a plugin that links one does not export it again. C99. */
#ifndef VLR_EXPORT_H_
#define VLR_EXPORT_H_

#if defined(__GNUC__) && !defined(VLR_STATIC)
#define VLR_API __attribute__((visibility("default")))
#else
#define VLR_API
#endif

#endif /* VLR_EXPORT_H_ */
