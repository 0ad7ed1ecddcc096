# vlr_add_module(NAME SOURCES ... [CUDA_SOURCES ...] [LINK ...]): one OBJECT library for a folder.
#   Its objects go into the product vlr::vlr and into the programs that link it, itself or through another target.
# vlr_add_test(NAME SOURCES ... MODULES ... [LINK ...]): one GoogleTest program; a test whose name
#   starts with Cuda is labelled gpu, every other one cpu.

add_library(vlr_options INTERFACE)
target_compile_features(vlr_options INTERFACE cxx_std_20)
target_include_directories(vlr_options INTERFACE "${PROJECT_SOURCE_DIR}" "${PROJECT_SOURCE_DIR}/include")
target_compile_definitions(vlr_options INTERFACE VLR_BUILDING
  $<$<BOOL:${VLR_WITH_CUDA}>:VLR_WITH_CUDA=1>
  $<$<BOOL:${VLR_WITH_FFMPEG}>:VLR_WITH_FFMPEG=1>
  $<$<BOOL:${VLR_WITH_CURL}>:VLR_WITH_CURL=1>
  $<$<BOOL:${VLR_WITH_OPENBLAS}>:VLR_WITH_OPENBLAS=1>)
# No contraction: a * b + c is fused where the code says so and nowhere else, whatever the target,
# because the bits of a score must not depend on the instruction set.
target_compile_options(vlr_options INTERFACE
  $<$<COMPILE_LANGUAGE:C,CXX>:-Wall -Wextra -Wshadow -Wconversion -ffp-contract=off>
  $<$<AND:$<COMPILE_LANGUAGE:C,CXX>,$<BOOL:${VLR_WERROR}>>:-Werror>
  $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20 -lineinfo>)
# Without a build type, as a subproject often is, a compiler would not optimise at all: a product takes 35 times as long.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  message(STATUS "vlr: there is no CMAKE_BUILD_TYPE; its own sources are compiled with -O3 all the same")
endif()
target_compile_options(vlr_options INTERFACE $<$<AND:$<CONFIG:>,$<COMPILE_LANGUAGE:C,CXX>>:-O3>)
if(VLR_SANITIZE)
  target_compile_options(vlr_options INTERFACE
    $<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer>
    # GCC's documentation says that sanitizers make -Wmaybe-uninitialized see what is not there; clang has none.
    $<$<OR:$<COMPILE_LANG_AND_ID:C,GNU>,$<COMPILE_LANG_AND_ID:CXX,GNU>>:-Wno-maybe-uninitialized>)
  target_link_options(vlr_options INTERFACE -fsanitize=address,undefined)
endif()

set_property(GLOBAL PROPERTY VLR_MODULES "")

function(vlr_add_module name)
  cmake_parse_arguments(ARG "" "" "SOURCES;CUDA_SOURCES;LINK" ${ARGN})
  if(VLR_WITH_CUDA)
    list(APPEND ARG_SOURCES ${ARG_CUDA_SOURCES})
  endif()
  add_library(${name} OBJECT ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON CXX_EXTENSIONS OFF)
  target_link_libraries(${name} PUBLIC vlr_options Threads::Threads ${ARG_LINK})
  # An OBJECT library gives its objects to its direct users only; sources are handed on, and named twice they come once.
  target_sources(${name} INTERFACE $<TARGET_OBJECTS:${name}>)
  set_property(GLOBAL APPEND PROPERTY VLR_MODULES ${name})
endfunction()

# vlr_add_test(NAME [ALONE] [WITHOUT FILTER] SOURCES ... [MODULES ...] [LINK ...]): a ctest test for each of its tests,
# but for those that a gtest filter names. ALONE: none of them beside another test.
function(vlr_add_test name)
  cmake_parse_arguments(ARG "ALONE" "WITHOUT" "SOURCES;MODULES;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  vlr_compile_as_test(${name})
  target_link_libraries(${name} PRIVATE ${ARG_MODULES} ${ARG_LINK} GTest::gtest_main)
  string(JOIN ":" without "*Cuda*" ${ARG_WITHOUT})
  gtest_discover_tests(${name} TEST_FILTER "-${without}" DISCOVERY_TIMEOUT 60
    PROPERTIES LABELS cpu RUN_SERIAL ${ARG_ALONE})
  if(VLR_WITH_CUDA)
    gtest_discover_tests(${name} TEST_FILTER "*Cuda*" PROPERTIES LABELS gpu DISCOVERY_TIMEOUT 60)
  endif()
endfunction()

# How a test's own code is compiled.
function(vlr_compile_as_test name)
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF)
  target_link_libraries(${name} PRIVATE vlr_options)
  target_compile_definitions(${name} PRIVATE
    VLR_SOURCE_DIR="${PROJECT_SOURCE_DIR}" VLR_TEST_DATA_DIR="${PROJECT_BINARY_DIR}/testdata")
  # It runs once: compiling it at -O3 takes half as long again. What is tested stays as it is shipped.
  target_compile_options(${name} PRIVATE $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-O1>)
endfunction()

# For the targets of a folder from here on, where they are short of loops: with a sanitizer's checks GCC takes twice as
# long with -O1 as without.
macro(vlr_compile_quickly_when_sanitized)
  if(VLR_SANITIZE)
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-O0>)
  endif()
endmacro()

# vlr_add_bench(NAME SOURCES ... MODULES ... [LINK ...]): one Google Benchmark program.
function(vlr_add_bench name)
  cmake_parse_arguments(ARG "" "" "SOURCES;MODULES;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE vlr_options ${ARG_MODULES} ${ARG_LINK} benchmark::benchmark)
  target_compile_definitions(${name} PRIVATE
    VLR_SOURCE_DIR="${PROJECT_SOURCE_DIR}" VLR_TEST_DATA_DIR="${PROJECT_BINARY_DIR}/testdata")
endfunction()

# vlr_add_fuzzer(NAME SOURCES ... MODULES ... [LINK ...]): with VLR_BUILD_FUZZERS a libFuzzer program;
# without it a program that replays the files and folders it is given. Both come from the same
# LLVMFuzzerTestOneInput, and ctest replays tests/fuzz/corpus/NAME.
function(vlr_add_fuzzer name)
  cmake_parse_arguments(ARG "" "" "SOURCES;MODULES;LINK" ${ARGN})
  add_executable(fuzz_${name} ${ARG_SOURCES})
  target_link_libraries(fuzz_${name} PRIVATE vlr_options ${ARG_MODULES} ${ARG_LINK})
  if(VLR_BUILD_FUZZERS)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(fuzz_${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests/fuzz/replay_main.cc")
  endif()
  add_test(NAME fuzz_replay/${name}
    COMMAND fuzz_${name} $<$<BOOL:${VLR_BUILD_FUZZERS}>:-runs=0>
      "${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name}")
  set_tests_properties(fuzz_replay/${name} PROPERTIES LABELS cpu)
endfunction()

# Packed data -> build/testdata/NAME, or NAME if that is absolute: a file from PACKED.xz, a folder from
# PACKED.tar.xz. Done at configure time: a few megabytes, a second.
function(vlr_unpack packed name)
  find_program(XZ xz REQUIRED)
  cmake_path(ABSOLUTE_PATH packed BASE_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}" NORMALIZE OUTPUT_VARIABLE in)
  cmake_path(ABSOLUTE_PATH name BASE_DIRECTORY "${PROJECT_BINARY_DIR}/testdata" OUTPUT_VARIABLE out)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${in}")
  if(NOT "${in}" IS_NEWER_THAN "${out}")
    return()
  endif()
  file(REMOVE_RECURSE "${out}")
  if(packed MATCHES "\\.tar\\.xz$")
    file(ARCHIVE_EXTRACT INPUT "${in}" DESTINATION "${out}" TOUCH)
  else()
    get_filename_component(folder "${out}" DIRECTORY)
    file(MAKE_DIRECTORY "${folder}")
    execute_process(COMMAND ${XZ} -dc "${in}" OUTPUT_FILE "${out}.part" COMMAND_ERROR_IS_FATAL ANY)
    file(RENAME "${out}.part" "${out}")
  endif()
endfunction()
