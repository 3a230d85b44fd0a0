#if KERNEL_DSP
#define KERNEL_INLINE static inline __attribute__((always_inline))

/* Words that hold two 16-bit or four 8-bit numbers, and may be read where such numbers were written. */
typedef int32_t KernelWord __attribute__((may_alias));

/* Four neighbouring bytes, wherever they lie. */
KERNEL_INLINE int32_t kernel_word(const int8_t *bytes) {
    int32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

/* The first and third byte of a word as 16-bit numbers. */
KERNEL_INLINE int32_t kernel_first(int32_t word) {
    int32_t pair;
    __asm__("sxtb16 %0, %1" : "=r"(pair) : "r"(word));
    return pair;
}

/* The second and fourth. */
KERNEL_INLINE int32_t kernel_second(int32_t word) {
    int32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
}

/* The lower halves of two words in one. */
KERNEL_INLINE int32_t kernel_pair(int32_t low, int32_t high) {
    int32_t pair;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(pair) : "r"(low), "r"(high));
    return pair;
}

/* sum + both products. */
KERNEL_INLINE int32_t kernel_both(int32_t x, int32_t w, int32_t sum) {
    int32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(x), "r"(w), "r"(sum));
    return result;
}

/* sum + the product of lower halves, of x's upper half, of w's upper half. */
KERNEL_INLINE int32_t kernel_low(int32_t x, int32_t w, int32_t sum) {
    int32_t result;
    __asm__("smlabb %0, %1, %2, %3" : "=r"(result) : "r"(x), "r"(w), "r"(sum));
    return result;
}
KERNEL_INLINE int32_t kernel_high_low(int32_t x, int32_t w, int32_t sum) {
    int32_t result;
    __asm__("smlatb %0, %1, %2, %3" : "=r"(result) : "r"(x), "r"(w), "r"(sum));
    return result;
}
KERNEL_INLINE int32_t kernel_low_high(int32_t x, int32_t w, int32_t sum) {
    int32_t result;
    __asm__("smlabt %0, %1, %2, %3" : "=r"(result) : "r"(x), "r"(w), "r"(sum));
    return result;
}

/* The limits of an output as integers; `narrow` where they are not those of int8_t. */
typedef struct {
    int32_t zero, low, high, narrow;
} KernelLimits;

static KernelLimits kernel_limits(const KernelOutput *to) {
    const KernelLimits limits = {to->zero, to->low, to->high, to->low > -128 || to->high < 127};
    return limits;
}

KERNEL_INLINE int32_t kernel_within(int32_t value, const KernelLimits *to) {
    value = value < to->low ? to->low : value;
    return value > to->high ? to->high : value;
}

/* A sum as an 8-bit number. The processor's own instruction rounds as it is set, half to even from the start. */
KERNEL_INLINE int32_t kernel_nearest(int32_t sum, float multiplier, int32_t zero) {
#if defined(__ARM_FP) && (__ARM_FP & 4)
    float nearest;
    int32_t value;
    __asm__("vcvtr.s32.f32 %0, %1" : "=t"(nearest) : "t"((float)sum * multiplier));
    memcpy(&value, &nearest, sizeof value);
    __asm__("qadd %0, %1, %2\n\tssat %0, #8, %0" : "=r"(value) : "r"(value), "r"(zero));
    return value;
#else
    return kernel_rounded((float)sum * multiplier, (float)(-128 - zero), (float)(127 - zero), zero);
#endif
}
#endif
