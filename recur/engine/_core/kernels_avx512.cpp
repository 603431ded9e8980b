#define RECUR_AVX512
#define RECUR_KERNELS kernels_avx512
#define RECUR_NAME "avx512"
#include "kernels.inc"
