# llama-server is compiled as our own llama.cpp is (engine/build/llama.cmake), with the
# `common` library that the binding never loads and the server cannot do without.
include(${CMAKE_CURRENT_LIST_DIR}/../engine/build/llama.cmake)
set(LLAMA_BUILD_COMMON ON)
