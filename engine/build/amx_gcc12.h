/* Forced into ggml-cpu's compilation (llama_build.cmake).
 *
 * GCC 12's _tile_loadconfig declares that it reads 8 bytes of the 64-byte tile
 * configuration, so at -O3 the stores to the other 56 are dropped and the first
 * tile instruction dies with "Illegal instruction" on every CPU that has AMX.
 * The replacement declares all 64 bytes. Later compilers are not affected. */
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#undef _tile_loadconfig
#define _tile_loadconfig(config) \
    __asm__ volatile("ldtilecfg\t%X0" ::"m"(*(const char(*)[64])(config)))
#endif
