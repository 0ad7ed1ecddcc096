# The installed package: find_package(vlr) and the target vlr::vlr, static or shared.
include(CMakePackageConfigHelpers)

# The modules' own links are for this build; these are what the user of a static vlr has to link too.
target_link_libraries(vlr PRIVATE Threads::Threads fmt::fmt
  PkgConfig::utf8proc PkgConfig::hwy PkgConfig::jpeg PkgConfig::webp PkgConfig::png
  $<$<BOOL:${VLR_WITH_CUDA}>:CUDA::cudart>
  $<$<BOOL:${VLR_WITH_CUDA}>:CUDA::cublasLt>
  $<$<BOOL:${VLR_WITH_FFMPEG}>:PkgConfig::ffmpeg>
  $<$<BOOL:${VLR_WITH_CURL}>:PkgConfig::curl>
  $<$<BOOL:${VLR_WITH_HEIF}>:PkgConfig::heif>
  $<$<BOOL:${VLR_WITH_OPENBLAS}>:PkgConfig::openblas>)

set(package_folder "${CMAKE_INSTALL_LIBDIR}/cmake/vlr")
install(TARGETS vlr EXPORT vlr-targets FILE_SET HEADERS)
if(VLR_BUILD_TOOLS)
  install(TARGETS vlr_cli)
endif()
install(EXPORT vlr-targets NAMESPACE vlr:: DESTINATION "${package_folder}")

# FALSE and TRUE, whatever the options were spelled like, or not set at all.
foreach(option BUILD_SHARED_LIBS VLR_WITH_CUDA VLR_WITH_FFMPEG VLR_WITH_CURL VLR_WITH_HEIF VLR_WITH_OPENBLAS)
  if(${option})
    set(${option} TRUE)
  else()
    set(${option} FALSE)
  endif()
endforeach()
configure_package_config_file(cmake/vlr-config.cmake.in vlr-config.cmake INSTALL_DESTINATION "${package_folder}")
write_basic_package_version_file(vlr-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/vlr-config.cmake" "${PROJECT_BINARY_DIR}/vlr-config-version.cmake"
  DESTINATION "${package_folder}")
