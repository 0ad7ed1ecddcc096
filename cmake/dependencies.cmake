# Every third-party package in one place. Packages only, nothing is downloaded: tools/install_deps.sh
# installs what is missing with apt.

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(fmt 9 REQUIRED CONFIG)
find_package(nlohmann_json 3.11 REQUIRED CONFIG)
find_package(PkgConfig REQUIRED)
pkg_check_modules(hwy REQUIRED IMPORTED_TARGET libhwy)

if(NOT VLR_KERNELS_ONLY)
  pkg_check_modules(utf8proc REQUIRED IMPORTED_TARGET libutf8proc)
  pkg_check_modules(xxhash REQUIRED libxxhash)  # its header is all that is used
  pkg_check_modules(jpeg REQUIRED IMPORTED_TARGET libjpeg)
  pkg_check_modules(webp REQUIRED IMPORTED_TARGET libwebp libwebpdemux)
  # Not stb_image, which hides the stored colour type, skips checksums and shifts 16-bit grey.
  pkg_check_modules(png REQUIRED IMPORTED_TARGET libpng)
endif()
if(VLR_WITH_FFMPEG)
  pkg_check_modules(ffmpeg REQUIRED IMPORTED_TARGET libavformat libavcodec libavutil libswscale)
endif()
if(VLR_WITH_CURL)
  pkg_check_modules(curl REQUIRED IMPORTED_TARGET libcurl>=7.85)  # CURLOPT_PROTOCOLS_STR
endif()
if(VLR_WITH_HEIF)
  pkg_check_modules(heif REQUIRED IMPORTED_TARGET libheif)
endif()
if(VLR_WITH_STB)
  pkg_check_modules(stb REQUIRED stb)  # a header, compiled into one file
endif()
if(VLR_WITH_OPENBLAS)
  pkg_check_modules(openblas REQUIRED IMPORTED_TARGET openblas)
endif()
if(VLR_BUILD_TOOLS OR VLR_BUILD_BENCH OR VLR_BUILD_TESTS)
  find_package(CLI11 2.1 REQUIRED CONFIG)
endif()
if(VLR_BUILD_TESTS)
  find_package(GTest REQUIRED)
  if(NOT VLR_KERNELS_ONLY)
    pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)  # the tests' second opinion on the split
  endif()
endif()
if(VLR_BUILD_BENCH AND NOT VLR_KERNELS_ONLY)
  find_package(benchmark REQUIRED CONFIG)
endif()
if(VLR_WITH_CUDA)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    # PTX of the portable path too, for cards that are newer than this list.
    set(CMAKE_CUDA_ARCHITECTURES 80-real 80-virtual 90a-real)
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit 12.4 REQUIRED)
endif()
