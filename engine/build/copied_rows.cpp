// Copies one node of llama.cpp's graph as it is computed: the eval callback of engine/hidden.py.
//
// A part of libllama, since the callback is asked about each node, some 1,000 times a pass: in
// Python each of them takes the GIL, and waits for it where another thread computes.

#include "ggml-backend.h"
#include "ggml.h"

#include <cstdint>
#include <cstring>

#ifdef _WIN32
#define FLASHFEED_API __declspec(dllexport)
#else
#define FLASHFEED_API __attribute__((visibility("default")))
#endif

extern "C" {

// As engine/hidden.py has it, field by field. `bytes` counts what does not fit, too.
struct flashfeed_copied_rows {
    const char * node;
    char * rows;
    uint64_t bytes_max;
    uint64_t bytes;
};

// Whether the node is wanted; with `asked` false it is computed, and false would end the pass.
FLASHFEED_API bool flashfeed_copy_rows(struct ggml_tensor * node, bool asked, void * data) {
    auto * copied = static_cast<flashfeed_copied_rows *>(data);
    if (asked) {
        return std::strcmp(ggml_get_name(node), copied->node) == 0;
    }
    const uint64_t bytes = ggml_nbytes(node);
    if (bytes > 0 && node->type == GGML_TYPE_F32 && copied->bytes + bytes <= copied->bytes_max) {
        ggml_backend_tensor_get(node, copied->rows + copied->bytes, 0, bytes);
    }
    copied->bytes += bytes;
    return true;
}
}
