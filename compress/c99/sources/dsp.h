/* Cortex-M with the DSP extension multiplies two pairs of 16-bit numbers at a time; -DKERNEL_PORTABLE does without, as
 * does -O0, which leaves too few registers. */
#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__) && defined(__OPTIMIZE__) && !defined(__ARM_BIG_ENDIAN) && \
    !defined(KERNEL_PORTABLE)
#define KERNEL_DSP (__ARM_ARCH_PROFILE == 'M')
#else
#define KERNEL_DSP 0
#endif
