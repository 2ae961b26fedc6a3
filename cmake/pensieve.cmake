# The three functions every folder of src/ uses, and the flags every target gets.
#
#   pensieve_library(base SOURCES status.cc ... DEPS fmt::fmt)      -> target pensieve_base
#   pensieve_test(base SOURCES status_test.cc ... DEPS ...)         -> test binary base_test, one ctest entry per gtest
#   pensieve_bench(backend SOURCES x_bench.cc ...)                  -> binary backend_bench (with -DPENSIEVE_BENCH=ON)

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)

find_program(PENSIEVE_CCACHE ccache)
if(PENSIEVE_CCACHE)
  # gcc's precompiled headers carry time stamps; without this sloppiness ccache refuses every file that uses one.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${PENSIEVE_CCACHE})
endif()
find_program(PENSIEVE_MOLD mold)
if(PENSIEVE_MOLD AND NOT APPLE AND NOT CMAKE_CROSSCOMPILING)  # the cross compiler looks for a mold of its own name
  add_link_options(-fuse-ld=mold)
endif()

add_library(pensieve_flags INTERFACE)
target_include_directories(pensieve_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_options(pensieve_flags INTERFACE
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Werror=unused-result -Werror=return-type -fno-math-errno)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # g++ 12 believes that std::string's own copies overflow (GCC bug 105651).
  target_compile_options(pensieve_flags INTERFACE -Wno-stringop-overflow -Wno-restrict -Wno-array-bounds)
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  # The floor of the portable parts; kernels for newer instruction sets are chosen at run time.
  target_compile_options(pensieve_flags INTERFACE -march=x86-64-v2)
else()
  # That floor has no fused product and sum; where a processor has, equal formulas still give equal bits.
  target_compile_options(pensieve_flags INTERFACE -ffp-contract=off)
endif()
if(PENSIEVE_SANITIZE)
  list(JOIN PENSIEVE_SANITIZE "," sanitizers)
  target_compile_options(pensieve_flags INTERFACE -fsanitize=${sanitizers} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(pensieve_flags INTERFACE -fsanitize=${sanitizers})
endif()
if(PENSIEVE_FUZZ)
  # Every library counts the edges that an input reaches; only the targets bring libFuzzer's main.
  target_compile_options(pensieve_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
target_link_libraries(pensieve_flags INTERFACE Threads::Threads fmt::fmt nlohmann_json::nlohmann_json)

# One precompiled header for all folders: the standard library, fmt and the JSON library.
add_library(pensieve_pch OBJECT ${CMAKE_SOURCE_DIR}/cmake/pch.cc)
target_link_libraries(pensieve_pch PUBLIC pensieve_flags)
target_precompile_headers(pensieve_pch PRIVATE
  <algorithm> <array> <atomic> <chrono> <cmath> <condition_variable> <cstdint> <cstring> <functional> <map>
  <memory> <mutex> <optional> <random> <span> <string> <string_view> <thread> <tuple> <unordered_map> <utility>
  <variant> <vector> <fmt/format.h> <nlohmann/json.hpp>)

function(pensieve_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(pensieve_${name} STATIC ${arg_SOURCES})
  target_link_libraries(pensieve_${name} PUBLIC pensieve_flags ${arg_DEPS} PRIVATE ${arg_PRIVATE_DEPS})
  target_precompile_headers(pensieve_${name} REUSE_FROM pensieve_pch)
endfunction()

function(pensieve_test name)
  if(NOT PENSIEVE_TESTS)
    return()
  endif()
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS" ${ARGN})
  find_package(GTest REQUIRED)
  include(GoogleTest)
  add_executable(${name}_test ${arg_SOURCES})
  target_link_libraries(${name}_test PRIVATE pensieve_${name} ${arg_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name}_test PRIVATE PENSIEVE_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_precompile_headers(${name}_test REUSE_FROM pensieve_pch)
  set(timeout 300)
  if(PENSIEVE_SANITIZE OR CMAKE_CROSSCOMPILING)
    set(timeout 3000)  # real models under ThreadSanitizer take minutes, and so does everything on an emulated processor
  endif()
  gtest_discover_tests(${name}_test TEST_PREFIX ${name}. DISCOVERY_MODE PRE_TEST PROPERTIES LABELS unit TIMEOUT ${timeout})
  set_property(GLOBAL APPEND PROPERTY PENSIEVE_TEST_TARGETS ${name}_test)
endfunction()

function(pensieve_bench name)
  if(NOT PENSIEVE_BENCH)
    return()
  endif()
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS" ${ARGN})
  find_package(benchmark REQUIRED)
  add_executable(${name}_bench ${arg_SOURCES})
  target_link_libraries(${name}_bench PRIVATE pensieve_${name} ${arg_DEPS} benchmark::benchmark_main)
  target_precompile_headers(${name}_bench REUSE_FROM pensieve_pch)
endfunction()
