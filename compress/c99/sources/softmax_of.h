/* Softmax of what a function gives: of a table of numbers, or of straight lines, one for each of `period` places. e to
 * minus a number is a product: of `coarse` for its eighths, and of `fine` for the 256 parts of one. */
typedef struct {
    const float *coarse, *fine, *numbers, *up, *shift;
    int32_t channels, pixels, period;
    float most, scale;
    int8_t zero;
    KernelOutput to;
} KernelSoftmaxOf;
void kernel_softmax_of(const KernelSoftmaxOf *p, const int8_t *in, int8_t *out);
