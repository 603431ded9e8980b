#define RECUR_AVX512
#define RECUR_VNNI
#define RECUR_BF16
#define RECUR_KERNELS kernels_avx512_bf16
#define RECUR_NAME "avx512_bf16"
#include "kernels.inc"
