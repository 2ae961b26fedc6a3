include(${CMAKE_CURRENT_LIST_DIR}/host_headers.cmake)
pensieve_host_headers(nlohmann_json::nlohmann_json nlohmann-json3-dev nlohmann)
set(nlohmann_json_FOUND TRUE)
