#define RECUR_AVX2
#define RECUR_KERNELS kernels_avx2
#define RECUR_NAME "avx2"
#include "kernels.inc"
