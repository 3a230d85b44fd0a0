/* Rows of `count` numbers, each without its mean and by its standard deviation, then times a factor and plus a number:
 * `inner` neighbours have the same, `channels` of them are there, and they begin again after the last one. `bits` and
 * `least` keep the square root in integers; `most` is larger than any product, see kernel_add. */
typedef struct {
    const float *factor, *shift;
    int32_t count, rows, inner, channels, bits;
    uint64_t least;
    float most;
    KernelOutput to;
} KernelNormalize;
void kernel_normalize(const KernelNormalize *p, const int8_t *in, int8_t *out);
