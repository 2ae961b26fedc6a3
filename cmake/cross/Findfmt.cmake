include(${CMAKE_CURRENT_LIST_DIR}/host_headers.cmake)
pensieve_host_headers(fmt::fmt libfmt-dev fmt)
target_compile_definitions(fmt::fmt INTERFACE FMT_HEADER_ONLY=1)
set(fmt_FOUND TRUE)
