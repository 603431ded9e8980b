#define RECUR_NEON
#define RECUR_KERNELS kernels_neon
#define RECUR_NAME "neon"
#include "kernels.inc"
