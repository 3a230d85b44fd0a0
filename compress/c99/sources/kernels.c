/* Channels of an image that are taken at a time. */
#define KERNEL_BLOCK 16

/* Loops that are faster as functions of their own, where a compiler can be told. */
#if defined(__GNUC__)
#define KERNEL_APART __attribute__((noinline))
#else
#define KERNEL_APART
#endif
