#define RECUR_KERNELS kernels_plain
#define RECUR_NAME "plain"
#include "kernels.inc"
