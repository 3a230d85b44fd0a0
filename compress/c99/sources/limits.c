/* The limits of an output without its zero point, as kernel_rounded takes them. */
static inline float kernel_lowest(const KernelOutput *to) {
    return (float)(to->low - to->zero);
}
static inline float kernel_highest(const KernelOutput *to) {
    return (float)(to->high - to->zero);
}
