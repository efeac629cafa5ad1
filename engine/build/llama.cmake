# What of llama.cpp gets compiled when llama-cpp-python is installed.
#
# CMake includes this file at the project() call of vendor/llama.cpp and of ggml
# (CMAKE_PROJECT_<name>_INCLUDE, see install.py beside it), so its plain variables
# win over the cache entries that llama-cpp-python forces ON.
#
# The binding needs libllama and libggml*, nothing else: `common` (argument
# parsing, HTTP downloads, chat parsing) is never loaded by Python.
set(LLAMA_BUILD_COMMON OFF)
set(LLAMA_OPENSSL OFF)

# The 190 model architectures are a unity build of 16 files a unit already; the
# headers dominate, so fewer and larger units are cheaper, two for each core.
# -O2 for libllama: it builds graphs; the arithmetic is in ggml, which keeps -O3.
if(PROJECT_NAME STREQUAL "ggml")
  cmake_language(EVAL CODE "cmake_language(DEFER DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} CALL
    target_compile_options ggml-cpu PRIVATE -include ${CMAKE_CURRENT_LIST_DIR}/amx_gcc12.h)")
endif()
if(PROJECT_NAME STREQUAL "llama.cpp")
  cmake_language(DEFER DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} CALL
    set_target_properties llama PROPERTIES UNITY_BUILD_BATCH_SIZE 48)
  cmake_language(DEFER DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} CALL
    target_compile_options llama PRIVATE -O2)
  # The eval callback that reads hidden states.
  cmake_language(EVAL CODE "cmake_language(DEFER DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} CALL
    target_sources llama PRIVATE ${CMAKE_CURRENT_LIST_DIR}/copied_rows.cpp)")
endif()
