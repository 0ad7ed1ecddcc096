/* VLR_API marks what the shared library exports; everything else is hidden. C99. */
#ifndef VLR_EXPORT_H_
#define VLR_EXPORT_H_

#if defined(__GNUC__)
#define VLR_API __attribute__((visibility("default")))
#else
#define VLR_API
#endif

#endif /* VLR_EXPORT_H_ */
