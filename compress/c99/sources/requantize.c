#if !KERNEL_DSP
KERNEL_APART static void kernel_requantize(const int32_t *sums, const float *multiplier, int32_t n, const KernelOutput *to,
                              int8_t *restrict out) {
    const float low = kernel_lowest(to), high = kernel_highest(to);
    const int32_t zero = to->zero;
    if (n == KERNEL_BLOCK) { /* a known number of times: compilers make vectors of it */
        for (int32_t i = 0; i < KERNEL_BLOCK; i++) {
            out[i] = kernel_rounded((float)sums[i] * multiplier[i], low, high, zero);
        }
        return;
    }
    for (int32_t i = 0; i < n; i++) {
        out[i] = kernel_rounded((float)sums[i] * multiplier[i], low, high, zero);
    }
}
#endif
