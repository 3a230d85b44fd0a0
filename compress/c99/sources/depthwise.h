/* Each channel convolved alone. weight: block of channels, row, column, channel of the block. */
typedef struct {
    const int8_t *weight;
    const int32_t *bias;
    const float *multiplier;
    KernelWindow window;
    int8_t in_zero;
    KernelOutput to;
} KernelDepthwise;
void kernel_depthwise(const KernelDepthwise *p, const int8_t *in, int8_t *out, int8_t *ring);
