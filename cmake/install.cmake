# The installed package: find_package(vlr) and the target vlr::vlr, static or shared; vlr::kernels where a user says
# COMPONENTS kernels. VLR_KERNELS_ONLY: the latter alone.
include(CMakePackageConfigHelpers)
set(package_folder "${CMAKE_INSTALL_LIBDIR}/cmake/vlr")

# The kernels, for a program or a plugin with a kernel of its own: vlr::kernels, always static.
add_library(vlr_kernels_static STATIC)
set_target_properties(vlr_kernels_static PROPERTIES EXPORT_NAME kernels OUTPUT_NAME vlr_kernels LINKER_LANGUAGE CXX)
target_link_libraries(vlr_kernels_static PRIVATE $<BUILD_INTERFACE:vlr_kernels>
  PUBLIC Threads::Threads fmt::fmt PkgConfig::hwy
  $<$<BOOL:${VLR_WITH_CUDA}>:CUDA::cudart>
  $<$<BOOL:${VLR_WITH_CUDA}>:CUDA::cublasLt>
  $<$<BOOL:${VLR_WITH_OPENBLAS}>:PkgConfig::openblas>)
# As vlr_options, for what the headers hold.
target_compile_features(vlr_kernels_static INTERFACE cxx_std_20)
target_compile_definitions(vlr_kernels_static INTERFACE $<$<BOOL:${VLR_WITH_CUDA}>:VLR_WITH_CUDA=1>)
target_compile_options(vlr_kernels_static INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off> $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>)

# The contracts, and what a kernel is written with. impls.h is what only its op's own list calls.
set(kernels_folder "${CMAKE_INSTALL_INCLUDEDIR}/vlr-kernels")
install(TARGETS vlr_kernels_static EXPORT vlr-kernels-targets
  INCLUDES DESTINATION "${kernels_folder}" "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT vlr-kernels-targets NAMESPACE vlr:: DESTINATION "${package_folder}")
install(DIRECTORY kernels DESTINATION "${kernels_folder}"
  FILES_MATCHING PATTERN "*.h" PATTERN "*.cuh" PATTERN impls.h EXCLUDE PATTERN json_tree.h EXCLUDE)

# FALSE and TRUE, whatever the options were spelled like, or not set at all.
foreach(option BUILD_SHARED_LIBS VLR_KERNELS_ONLY VLR_WITH_CUDA VLR_WITH_FFMPEG VLR_WITH_CURL VLR_WITH_HEIF VLR_WITH_OPENBLAS)
  if(${option})
    set(${option} TRUE)
  else()
    set(${option} FALSE)
  endif()
endforeach()

install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}")

configure_package_config_file(cmake/vlr-config.cmake.in vlr-config.cmake INSTALL_DESTINATION "${package_folder}")
write_basic_package_version_file(vlr-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/vlr-config.cmake" "${PROJECT_BINARY_DIR}/vlr-config-version.cmake"
  DESTINATION "${package_folder}")

if(VLR_KERNELS_ONLY)
  # What the kernels' headers include of vlr's.
  install(FILES include/vlr/export.h include/vlr/status.h include/vlr/version.h
    DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/vlr")
  return()
endif()

# The modules' own links are for this build; these are what the user of a static vlr has to link too.
target_link_libraries(vlr PRIVATE Threads::Threads fmt::fmt
  PkgConfig::utf8proc PkgConfig::hwy PkgConfig::jpeg PkgConfig::webp PkgConfig::png
  $<$<BOOL:${VLR_WITH_CUDA}>:CUDA::cudart>
  $<$<BOOL:${VLR_WITH_CUDA}>:CUDA::cublasLt>
  $<$<BOOL:${VLR_WITH_FFMPEG}>:PkgConfig::ffmpeg>
  $<$<BOOL:${VLR_WITH_CURL}>:PkgConfig::curl>
  $<$<BOOL:${VLR_WITH_HEIF}>:PkgConfig::heif>
  $<$<BOOL:${VLR_WITH_OPENBLAS}>:PkgConfig::openblas>)

# CMake below 3.23 knows no file sets: it is told where the headers are.
install(TARGETS vlr EXPORT vlr-targets FILE_SET HEADERS INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
if(VLR_BUILD_TOOLS)
  install(TARGETS vlr_cli)
endif()
install(EXPORT vlr-targets NAMESPACE vlr:: DESTINATION "${package_folder}")

# For builds without CMake: vlr.pc. What a static vlr stands on, its user links too.
file(RELATIVE_PATH pc_prefix "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
set(pc_modules fmt libutf8proc libhwy libjpeg libwebp libwebpdemux libpng)
set(pc_libs -lstdc++ -lm -pthread)
if(VLR_WITH_FFMPEG)
  list(APPEND pc_modules libavformat libavcodec libavutil libswscale)
endif()
if(VLR_WITH_CURL)
  list(APPEND pc_modules libcurl)
endif()
if(VLR_WITH_HEIF)
  list(APPEND pc_modules libheif)
endif()
if(VLR_WITH_OPENBLAS)
  list(APPEND pc_modules openblas)
endif()
if(VLR_WITH_CUDA)
  list(APPEND pc_libs "-L${CUDAToolkit_LIBRARY_DIR}" -lcublasLt -lcudart)
endif()
string(JOIN " " pc_modules ${pc_modules})
string(JOIN " " pc_libs ${pc_libs})
if(BUILD_SHARED_LIBS)
  set(pc_dependencies "Requires.private: ${pc_modules}
Libs: -L\${libdir} -lvlr
Libs.private: ${pc_libs}
Cflags: -I\${includedir}")
else()
  set(pc_dependencies "Requires: ${pc_modules}
Libs: -L\${libdir} -lvlr ${pc_libs}
Cflags: -I\${includedir} -DVLR_STATIC")
endif()
configure_file(cmake/vlr.pc.in vlr.pc @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/vlr.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
