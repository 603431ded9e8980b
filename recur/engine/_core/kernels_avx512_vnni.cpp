#define RECUR_AVX512
#define RECUR_VNNI
#define RECUR_KERNELS kernels_avx512_vnni
#define RECUR_NAME "avx512_vnni"
#include "kernels.inc"
